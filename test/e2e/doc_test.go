// Package e2e runs the real program against the lab with real peers: OpenSSH's ssh, sftp, scp and
// sshd, rsync, and ansible-playbook. Every test ends by asking the lab whether a session is left.
// Those that mostly wait for programs, and measure neither time nor what the machine holds, are parallel.
package e2e
