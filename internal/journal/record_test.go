package journal

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// full is a record with every field.
func full() Record {
	at := time.Date(2026, 11, 21, 10, 0, 0, 123, time.UTC)
	return Record{
		Tag: strings.Repeat("0a", tagBytes), Target: "mi-0123456789abcdef0", Document: "AWS-StartSSHSession", Region: "eu-west-1",
		Profile: "prod user", Endpoint: "https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com", Account: "123456789012", Control: "/run/user/1/ssm-ssh/00",
		Place: Place{"host", "pid:[4026531836]", "boot"}, PID: 7, Began: at,
		progress: progress{Session: "me-0123", Owner: "me", Stale: at, Failed: at},
	}
}

func TestRecordText(t *testing.T) {
	r := full()
	r.progress = progress{}
	want := `{"tag":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","target":"mi-0123456789abcdef0","document":"AWS-StartSSHSession","region":"eu-west-1",` +
		`"profile":"prod user","endpoint":"https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com","account":"123456789012","control":"/run/user/1/ssm-ssh/00",` +
		`"host":"host","namespace":"pid:[4026531836]","boot":"boot","pid":7,"began":"2026-11-21T10:00:00.000000123Z"}` + "\n"
	if got := string(line(r)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, err := parse(slices.Concat(line(r), line(full().progress))); err != nil || got != full() {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWhatIsNoRecord(t *testing.T) {
	with := func(change func(*Record)) string {
		r := full()
		change(&r)
		return string(line(r))
	}
	for name, text := range map[string]string{
		"empty":            "",
		"no line end":      strings.TrimSuffix(string(line(full())), "\n"),
		"other JSON":       "[]\n",
		"no tag":           with(func(r *Record) { r.Tag = "" }),
		"tag with a slash": with(func(r *Record) { r.Tag = "../../../../../../etc/passwd/////" }),
		"no target":        with(func(r *Record) { r.Target = "" }),
		"no host":          with(func(r *Record) { r.Host = "" }),
		"escape sequence":  with(func(r *Record) { r.Target = "\x1b[2J" }),
		"line end":         with(func(r *Record) { r.Profile = "a\nb" }),
		"endless field":    with(func(r *Record) { r.Profile = strings.Repeat("x", fieldLimit+1) }),
		"endless file":     string(line(full())) + strings.Repeat("\n", recordLimit),
	} {
		if r, err := parse([]byte(text)); err == nil {
			t.Errorf("%s: taken for %+v", name, r)
		}
	}
}

// FuzzParse: no panic; what is taken is safe to act on and to print, and comes out of the file as it went
// in.
func FuzzParse(f *testing.F) {
	intent := full()
	intent.progress = progress{}
	f.Add(line(intent))
	f.Add(slices.Concat(line(intent), []byte("\n"), line(full().progress)))
	f.Add(slices.Concat(line(intent), []byte(`{"session":"x`)))
	f.Add(slices.Concat(line(intent), []byte("{\"session\":\"x\\u001b\"}\n{\"failed\":\"9999-12-31T23:59:59+23:59\"}\n")))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parse(text)
		if err != nil {
			return
		}
		if !r.valid() {
			t.Fatalf("%+v", r)
		}
		again, err := parse(line(r))
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if !again.Began.Equal(r.Began) || !again.Stale.Equal(r.Stale) || !again.Failed.Equal(r.Failed) {
			t.Fatalf("times of %+v became %+v", r, again)
		}
		again.Began, again.Stale, again.Failed = r.Began, r.Stale, r.Failed
		if again != r {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}
