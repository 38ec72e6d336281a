package lab

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// controlHandler is the endpoint for shells and other processes, at SSM_SSH_LAB_CONTROL:
//
//	GET  /counts             Counts as JSON
//	GET  /faults             the FaultSet
//	PUT  /faults             replaces it; {} heals everything
//	POST /cut/client|agent   resets websockets; /bye/… closes them with 1000 "Bye"
//	POST /expire             ends all sessions as the idle time-out does
//	POST /terminate          ends them as somebody's TerminateSession does
//	POST /node/NAME/stop-agent|start-agent|stop-sshd|start-sshd|freeze|thaw|reboot?down=1s
//
// It is not behind the delay line, and it takes anybody on the loopback for a friend, as the rest
// of the lab does.
func (l *Lab) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, l.Counts()) })
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, l.faults.Get()) })
	mux.HandleFunc("PUT /faults", l.putFaults)
	for path, do := range map[string]func(){
		"/cut/client": l.faults.CutClients, "/cut/agent": l.faults.CutAgents,
		"/bye/client": l.faults.ByeClients, "/bye/agent": l.faults.ByeAgents, "/expire": l.faults.Expire,
		"/terminate": l.faults.Terminate,
	} {
		mux.HandleFunc("POST "+path, func(http.ResponseWriter, *http.Request) { do() })
	}
	mux.HandleFunc("POST /node/{name}/{action}", l.nodeAction)
	return mux
}

func (l *Lab) putFaults(w http.ResponseWriter, r *http.Request) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyLimit))
	decoder.DisallowUnknownFields() // a fault misspelled is a test that tests nothing
	var set FaultSet
	if err := decoder.Decode(&set); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l.faults.Set(set)
}

func (l *Lab) nodeAction(w http.ResponseWriter, r *http.Request) {
	n := l.node(r.PathValue("name"))
	if i, err := strconv.Atoi(r.PathValue("name")); n == nil && err == nil && i >= 0 && i < len(l.nodes) {
		n = l.nodes[i]
	}
	if n == nil {
		http.NotFound(w, r)
		return
	}
	var err error
	switch r.PathValue("action") {
	case "stop-agent":
		n.StopAgent()
	case "freeze", "thaw":
		n.Freeze(r.PathValue("action") == "freeze")
	case "start-agent":
		n.StartAgent()
	case "stop-sshd":
		err = n.StopSSHD()
	case "start-sshd":
		err = n.StartSSHD(r.Context())
	case "reboot":
		down, perr := time.ParseDuration(r.FormValue("down"))
		if perr != nil {
			down = 0
		}
		err = n.Reboot(r.Context(), down)
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
