package e2e

import (
	"time"

	"ssm-ssh/test/lab"
)

// cutFaults lose a websocket, one of either side, at every phase: the session goes on.
func cutFaults() []fault {
	ways := []struct {
		name   string
		strike func(*rig)
		seen   func(lab.Counts) bool
	}{
		{"our websocket is cut", cutClients, resumed},
		{"the agent's websocket is cut", cutAgents, nil},
		{"our websocket is closed with Bye", byeClients, resumed},
		{"the agent's websocket is closed with Bye", byeAgents, nil},
	}
	smoke := map[phase]int{inHandshake: 0, inUpload: 0, inDownload: 1, idle: 2} // of short mode: which way at which phase
	var rows []fault
	for i, way := range ways {
		for at := inHandshake; at <= idle; at++ {
			chosen, ok := smoke[at]
			f := fault{name: way.name + " " + at.String(), full: !ok || chosen != i, at: at, strike: way.strike, seen: way.seen}
			if at <= inLogin { // long enough to be struck
				f.opts = lab.Options{RTT: 50 * time.Millisecond, AgentLink: lab.Link{RTT: 50 * time.Millisecond}}
			}
			rows = append(rows, f)
		}
	}
	return append(rows,
		fault{name: "both websockets are cut at once in mid-upload", full: true, at: inUpload, strike: all(cutAgents, cutClients), seen: resumed},
		fault{name: "ten cuts in a row in mid-download", full: true, at: inDownload, strike: func(r *rig) {
			for range 10 {
				cutClients(r)
				<-time.After(150 * time.Millisecond)
			}
		}, seen: resumed})
}

// outageFaults take the network away for some time.
func outageFaults() []fault {
	refused := lab.FaultSet{RefuseAPI: true, RefuseGateway: true}
	stalled := lab.FaultSet{StallAPI: true, StallGateway: true}
	return []fault{
		{name: "gateway stalls in mid-upload", at: inUpload, strike: forSome(scaled(2*time.Second, 5*time.Second), lab.FaultSet{StallGateway: true})},
		{name: "gateway stalls in mid-download", full: true, at: inDownload, strike: forSome(3*time.Second, lab.FaultSet{StallGateway: true})},
		{name: "gateway stalls for long in mid-upload", full: true, at: inUpload, strike: forSome(30*time.Second, lab.FaultSet{StallGateway: true}), seen: resumed},
		{name: "all stalls for long in mid-download", full: true, at: inDownload, strike: forSome(40*time.Second, stalled), seen: resumed},
		{name: "all stalls for long while idle", full: true, at: idle, strike: forSome(30*time.Second, stalled)},
		{name: "agent's side stalls in mid-upload", full: true, at: inUpload, strike: forSome(5*time.Second, lab.FaultSet{StallAgent: true})},
		{name: "gateway and API are out in mid-upload", at: inUpload,
			strike: all(cutClientsUnder(refused), forSome(scaled(3*time.Second, 30*time.Second), refused)), seen: resumed},
		{name: "gateway and API are out in mid-download", full: true, at: inDownload,
			strike: all(cutClientsUnder(refused), forSome(5*time.Second, refused)), seen: resumed},
		{name: "gateway and API are out in a silent command", full: true, at: inCommand,
			strike: all(cutClientsUnder(refused), forSome(5*time.Second, refused)), seen: resumed},
		{name: "gateway is out while idle", full: true, at: idle,
			strike: all(cutClientsUnder(lab.FaultSet{RefuseGateway: true}), forSome(5*time.Second, lab.FaultSet{RefuseGateway: true})), seen: resumed},
		{name: "outage longer than SSMResume", args: []string{"-o", "SSMResume=2"}, at: inUpload, strike: all(with(lab.FaultSet{RefuseGateway: true}), cutClients),
			ends: line("connection lost: .*not resumed within 2s")},
		{name: "no resume at all", full: true, args: []string{"-o", "SSMResume=0"}, at: inDownload, strike: cutClients,
			ends: line("connection lost: the websocket was lost.*SSMResume")},
		{name: "gateway refuses at the start", full: true, args: []string{"-o", "ConnectTimeout=5"}, strike: with(lab.FaultSet{RefuseGateway: true}),
			ends: line("open data channel: ")},
		{name: "gateway stalls at the start", args: []string{"-o", "ConnectTimeout=3"}, strike: with(lab.FaultSet{StallGateway: true}),
			ends: line("open data channel: "), within: 8 * time.Second},
	}
}

// cutClientsUnder cuts when the faults are on, so that nobody slips through between the two.
func cutClientsUnder(set lab.FaultSet) func(*rig) { return all(with(set), cutClients) }
