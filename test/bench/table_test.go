package bench

import (
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
)

// row is one line of the table: what was measured, ours and the peer's, and what we want.
type row struct {
	what, unit string
	ours, peer []float64 // neighbours in time have the same index; peer may be empty
	against    string    // the peer
	goal       string    // of the ratio, or of ours where there is no peer
}

// table is what all benchmarks of a run have found, in the order in which they ended.
var table struct {
	sync.Mutex
	plugin string // version
	rows   []row
}

func report(rows ...row) {
	table.Lock()
	defer table.Unlock()
	table.rows = append(table.rows, rows...)
}

// printTable prints it, when there is anything in it.
func printTable(w io.Writer) {
	table.Lock()
	defer table.Unlock()
	if len(table.rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s, %d processors\nmedians with the quartiles of n; ratios are of neighbours in time\n\n", versions(), runtime.NumCPU())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tours\tpeer\tours to peer\tgoal")
	for _, r := range table.rows {
		peer, ratio := "", ""
		if len(r.peer) > 0 {
			peer = r.against + " " + number(quantile(r.peer, 0.5)) + " " + r.unit
			ratio = spread(ratiosOf(r.ours, r.peer))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.what, ours(r), peer, ratio, r.goal)
	}
	t.Flush()
}

func ours(r row) string {
	if len(r.ours) == 1 {
		return number(r.ours[0]) + " " + r.unit
	}
	return number(quantile(r.ours, 0.5)) + " " + r.unit
}

// spread tells the median with the quartiles around it.
func spread(values []float64) string {
	return fmt.Sprintf("%s (%s to %s, n=%d)", number(quantile(values, 0.5)), number(quantile(values, 0.25)), number(quantile(values, 0.75)), len(values))
}

// number has about three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func versions() string {
	ssh, _ := exec.Command("ssh", "-V").CombinedOutput()
	kernel, _ := exec.Command("uname", "-srm").Output()
	text := runtime.Version() + ", " + strings.TrimSpace(string(ssh)) + ", " + strings.TrimSpace(string(kernel))
	if table.plugin != "" {
		text += ", session-manager-plugin " + table.plugin
	}
	return text
}
