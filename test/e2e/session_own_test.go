package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
)

// ownRow is a script of a shell in which SSH, with options before @ and a command after it, is a call to the
// node. What OpenSSH shows and how the script ends is what ours must show.
type ownRow struct{ name, script string }

var ownRows = []ownRow{
	{"15 status", `for i in 0 1 4 5 44 255 300; do SSH @ "exit $i"; echo $?; done`},
	{"16 killed command", `SSH @ 'kill -9 $$'; echo $?`},
	{"18 half close", `printf abc | SSH @ 'cat; echo EOF'`},
	{"19 reader gone", `(SSH @ yes; echo $? >st) | head -1; cat st`},
	{"20 stderr after stdout", `SSH @ 'exec >&-; sleep 0.2; echo late >&2' </dev/null`},
	{"21 background holder", `a=$(date +%s); SSH @ 'sleep 2 & echo out'; b=$(date +%s); test $((b - a)) -ge 1; echo $?`},
	{"21 redirected one", `SSH @ 'sleep 60 </dev/null >/dev/null 2>&1 & echo out'`},
	{"22 -n", `echo in | SSH -n @ 'cat; echo end'`},
	{"22 closed", `SSH @ 'cat; echo end' <&-; SSH @ 'echo lost; exit 3' >&-; echo $?; SSH @ 'echo out; echo lost >&2; exit 4' 2>&-; echo $?`},
	{"23 endless input", `SSH @ true </dev/zero; echo $?`},
	{"25 signals", `for s in TERM INT HUP QUIT; do KILLED $s @ 'echo up; cat' ; done`},
	{"25 -N", `for s in TERM INT HUP; do KILLED $s -N @; done`},
	{"25 nohup", `trap '' HUP; mkfifo nohup; EXEC=exec SSH @ 'echo up; read l; echo $l' <nohup >out & exec 3>nohup
		until grep -q up out; do sleep 0.05; done; kill -HUP $!; echo on >&3; wait $!; echo $?; cat out`},
	{"26 -f", `SSH -f @ 'sleep 0.5; echo out; echo err >&2' >out 2>err </dev/null; echo $?; until [ -s err ]; do sleep 0.05; done; cat out err`},
	{"26 -f without a command", `SSH -f @; echo $?`},
	{"28 -tt", `SSH -tt @ 'stty size; tty | sed s/[0-9]*$//; exit 6' </dev/null; echo $?`},
	{"28 -tt -q", `SSH -q -tt @ 'exit 6' </dev/null; echo $?`},
	{"28 -tt, killed", `SSH -tt @ 'kill -9 $$' </dev/null; echo $?`},
	{"28 escapes in what is piped to -tt", `printf '~?' | SSH -tt @ 'stty raw -echo; sleep 0.5' | cat`},
	{"29 shell", `echo 'echo in the shell; exit 7' | SSH @; echo $?`},
	{"29 shell, quiet", `echo 'echo in the shell; exit 7' | SSH -q @; echo $?`},
	{"30 no pty, -t", `SSH -tt NOPTY @ 'echo out'; echo $?`},
	{"30 no pty, subsystem", `SSH NOPTY @ 'echo out'; echo $?`},
	{"31 environment", `LC_A=a LC_B=b; export LC_A LC_B; SSH -o SendEnv=LC_A -o SetEnv=LC_C=c -o SetEnv=LC_D=d @ 'echo "$LC_A|$LC_B|$LC_C|$LC_D"'`},
	{"31 TERM", `TERM=dumb SSH -tt @ 'echo $TERM' </dev/null; TERM=dumb SSH -tt -o SetEnv=TERM=vt100 @ 'echo $TERM' </dev/null`},
	{"32 no subsystem", `SSH -s @ nope; echo $?`},
	{"38 -E", `SSH -E log @ 'exit 3'; echo $?; SSH -E log -tt @ 'exit 3' </dev/null; cat log`},
	{"34 killed server", `SSH @ 'kill -9 $PPID; sleep 1'; echo $?; SSH -q @ 'kill -9 $PPID; sleep 1'; echo $?; SSH -E log -tt @ 'kill -9 $PPID; sleep 1' </dev/null; cat log`},
	{"quiet failure", `SSH -q -s @ nope; echo $?`},
}

// The functions of such a script. KILLED sends a signal once the call has said something, or is connected.
const ownFunctions = `
SSH() {
	before=
	while [ "$1" != @ ]; do
		case $1 in NOPTY) before="$before $NOPTY";; *) before="$before $1";; esac
		shift
	done
	shift
	$EXEC $PROGRAM $before $TARGET "$@"
}
KILLED() {
	signal=$1; shift
	rm -f said socket endless; mkfifo endless
	EXEC=exec SSH -L $PWD/socket:127.0.0.1:1 "$@" <>endless >said & pid=$!
	case $* in
	*-N*) until [ -S socket ]; do sleep 0.05; done; sleep 0.2 ;; # and heeds signals
	*) until [ -s said ]; do sleep 0.05; done ;;
	esac
	kill -$signal $pid; wait $pid; echo $?
}
`

// hung is what OpenSSH says in the place of "Connection to HOST closed by remote host." where it notices by a
// write before it does by a read.
const hung = "client_loop: send disconnect: Broken pipe\r\n"

// hint is the line that we may add to OpenSSH's.
var hint = regexp.MustCompile(`(?m)^ssm-ssh: [^\n]*\n`)

func TestOwnConnectionAsOpenSSH(t *testing.T) {
	var mu sync.Mutex
	want := make(map[string]result)
	eachWay(t, (*rig).ownWays, func(w route) {
		key := w.keyWithoutPTY()
		atOnce(w.T, ownRows, func(t *testing.T, row ownRow) {
			w := w
			w.rig = w.within(t)
			got := w.run(w.script(row.script, "NOPTY=-i "+key+" -o IdentitiesOnly=yes"))
			got.stdout, got.stderr = strings.ReplaceAll(got.stdout, w.host(), "HOST"), strings.ReplaceAll(got.stderr, w.host(), "HOST")
			got.stderr = strings.ReplaceAll(got.stderr, hung, "Connection to HOST closed by remote host.\r\n")
			if w.name == "node" {
				got.stderr = hint.ReplaceAllString(got.stderr, "")
			}
			mu.Lock()
			defer mu.Unlock()
			if w.stock {
				want[row.name] = got
				t.Logf("%+v", got)
			} else if stock := want[row.name]; got != stock {
				t.Errorf("got %q %q %d\nOpenSSH %q %q %d", got.stdout, got.stderr, got.status, stock.stdout, stock.stderr, stock.status)
			}
		})
	})
}

// atOnce runs rows, which mostly wait, several at a time.
func atOnce(t *testing.T, rows []ownRow, test func(*testing.T, ownRow)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, rowsAtOnce)
	for _, row := range rows {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(row.name, func(t *testing.T) { test(t, row) })
		})
	}
	wg.Wait()
}

// A server that says nothing more is given up in time: three intervals of a second, of which OpenSSH, whose clock
// knows whole seconds only, may cut one short.
func TestServerAlive(t *testing.T) {
	var stock result
	eachWay(t, (*rig).ownWays, func(w route) {
		began := time.Now()
		got := w.run(w.script(`SSH -o ServerAliveInterval=1 -o ServerAliveCountMax=2 @ 'kill -STOP $PPID; sleep 8; kill -CONT $PPID'; echo $?`))
		took := time.Since(began)
		got.stderr = strings.ReplaceAll(got.stderr, w.host(), "HOST")
		if w.stock {
			stock = got
		}
		if got != stock || took < 2*time.Second || took > 8*time.Second {
			t.Errorf("%+v after %v; OpenSSH %+v", got, took, stock)
		}
	})
}

// What nobody reads isn't gathered: a command that takes no input ends at once, whatever comes.
func TestEndlessInput(t *testing.T) {
	eachWay(t, (*rig).allWays, func(w route) {
		zero, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer zero.Close()
		cmd := w.prepare(w.call(nil, "sleep 0.3; echo done"))
		cmd.Stdin = zero
		out, err := cmd.Output()
		if err != nil || string(out) != "done\n" {
			t.Errorf("%q, %v", out, err)
		}
		used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		t.Logf("%d KiB at most", used.Maxrss)
		if !testenv.Race && used.Maxrss > 60_000 { // the channel's window is 2 MiB
			t.Errorf("it has grown to %d KiB", used.Maxrss)
		}
	})
}

// script is a shell's, with SSH for this route, in a folder of its own.
func (w route) script(text string, env ...string) *exec.Cmd {
	w.Helper()
	mark := "TARGET-IS-HERE"
	call := w.call([]string{mark}).Args
	at := slices.Index(call, mark)
	dir := w.sharedDir()
	cmd := exec.Command("bash", "-c", "cd "+dir+"\n"+ownFunctions+text)
	cmd.Env = append(env, "PROGRAM="+strings.Join(call[:at], " "), "TARGET="+strings.Join(call[at+1:], " "))
	return cmd
}
