#!/bin/sh
# The demo's part inside the lab: `make demo` runs it as `ssm-ssh lab --nodes 3 -- examples/demo.sh`.
# Runs site.yml over ssm-ssh and logs in once, then shows what it took. Fails when a task did, when
# a node took more than one session, or when one is left.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
program=${SSM_SSH:-$here/../bin/ssm-ssh}
: "${SSM_SSH_LAB_CONTROL:?is set by: ssm-ssh lab -- $0}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -m 700 "$work/cp"

# count NAME: a number of the lab's, as GET /counts names it.
count() {
	python3 -c 'import json, sys, urllib.request
print(json.load(urllib.request.urlopen(sys.argv[1] + "/counts"))[sys.argv[2]])' "$SSM_SSH_LAB_CONTROL" "$1"
}

nodes=$(echo "$SSM_SSH_LAB_TARGETS" | wc -w)
first=${SSM_SSH_LAB_TARGETS%% *}
dd if=/dev/urandom of="$work/5MB" bs=1000000 count=5 2>/dev/null

# The lab's configuration holds key, known_hosts and port. A ControlPath is added, Ansible's too, so
# that the login below finds the playbook's session. (%h and not %C, which is made of port and user
# as well: stock sftp, which Ansible calls for files, takes those from other configuration.)
{
	echo "Host *"
	echo "    ControlPath $work/cp/%h"
	cat "$SSM_SSH_CONFIG"
} >"$work/config"
export SSM_SSH_CONFIG="$work/config"

export ANSIBLE_CONFIG="$here/ansible.cfg" ANSIBLE_SSH_EXECUTABLE="$program"
export ANSIBLE_SSH_CONTROL_PATH="$work/cp/%%h" ANSIBLE_HOME="$work/ansible" ANSIBLE_LOCAL_TEMP="$work/ansible/tmp"
export ANSIBLE_NOCOLOR=1 DEMO_FILE="$work/5MB" DEMO_RESULTS="$work/results"

echo "\$ ansible-playbook -i $nodes-nodes.ini site.yml        # ssh_executable = ssm-ssh"
began=$(date +%s%N)
status=0
ansible-playbook -i "$SSM_SSH_LAB_INVENTORY" "$here/site.yml" >"$work/log" 2>&1 || status=$?
ended=$(date +%s%N)
cat "$work/log"

echo "\$ ssm-ssh $SSM_SSH_LAB_USER@$first uname -a"
"$program" "$SSM_SSH_LAB_USER@$first" uname -a || status=$?

# The masters would stay for a minute, for whoever comes next.
for socket in "$work"/cp/*; do
	[ ! -S "$socket" ] || "$program" -S "$socket" -O exit "$first" 2>/dev/null || status=$?
done
tries=0
while [ "$(count live_sessions)" != 0 ] && [ $tries -lt 50 ]; do
	tries=$((tries + 1))
	sleep 0.2
done
started=$(count start_session) left=$(count live_sessions)

awk -v nodes="$nodes" -v started="$started" -v left="$left" -v ms=$(((ended - began) / 1000000)) '
	/ ok=[0-9]+ / {
		for (i = 1; i <= NF; i++) { split($i, pair, "="); sum[pair[1]] += pair[2] }
	}
	/^\[WARNING\]/ { warnings++ }
	END {
		bad = sum["failed"] + sum["unreachable"]
		print ""
		printf "tasks ok              %d on %d nodes; %d failed, %d warnings\n", sum["ok"], nodes, bad, warnings
		printf "SSM sessions started  %d (%.3g per node), for the playbook and the login\n", started, started / nodes
		printf "SSM sessions left     %d\n", left
		printf "playbook took         %.1f s\n", ms / 1000
		exit bad > 0 || warnings > 0 || sum["ok"] == 0 || started != nodes || left != 0
	}' "$work/log" || status=1
exit $status
