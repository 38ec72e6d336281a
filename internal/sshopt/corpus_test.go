package sshopt

// The corpora of the comparison with stock ssh.

var ansible = []string{"-C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", "Port=22922",
	"-o", `IdentityFile="/tmp/key"`, "-o", "KbdInteractiveAuthentication=no",
	"-o", "PreferredAuthentications=gssapi-with-mic,gssapi-keyex,hostbased,publickey",
	"-o", "PasswordAuthentication=no", "-o", `User="root"`, "-o", "ConnectTimeout=10",
	"-o", "UserKnownHostsFile=/tmp/kh", "-o", `ControlPath="/root/.ansible/cp/d31fdd5051"`}

func withAnsible(before []string, after ...string) []string {
	return append(append(append([]string(nil), before...), ansible...), after...)
}

// dumpCorpus are command lines that -G answers.
var dumpCorpus = [][]string{
	{"h"},
	// Ansible.
	withAnsible(nil, "127.0.0.1", "/bin/sh -c 'echo ~root && sleep 0'"),
	withAnsible(nil, "-tt", "127.0.0.1", `/bin/sh -c 'sudo -H -S -n  -u root /bin/sh -c '"'"'echo x'"'"' && sleep 0'`),
	withAnsible(nil, "-O", "stop", "host.example.com"),
	withAnsible([]string{"-o", "StrictHostKeyChecking=no", "-o", "NumberOfPasswordPrompts=1"}, "mi-0123456789abcdef0", "true"),
	{"-o", "ControlMaster=auto", "-o", "ControlPersist=15m", "-o", "ControlPath=/p/%C", "-o", "IdentitiesOnly=yes", "h", "true"},
	// The tools of the contract's list.
	{"-x", "-oPermitLocalCommand=no", "-oClearAllForwardings=yes", "-oRemoteCommand=none", "-oRequestTTY=no",
		"-oForwardAgent=no", "-l", "u", "-s", "--", "h", "sftp"},
	{"-oRequestTTY=no", "-q", "-oBatchmode=no", "-C", "-oForwardAgent=no", "-p", "2222", "-l", "u", "-s", "--", "h", "sftp"},
	{"-oForwardX11 no", "-oPermitLocalCommand no", "-oClearAllForwardings yes", "-oForwardAgent no", "-l", "u", "-s", "--", "h", "sftp"},
	{"-oPort 2222", "-q", "-oForwardAgent no", "--", "h", "/usr/lib/sftp-server"},
	{"-p", "22", "-o", "Compression=no", "-l", "u", "h", "rsync", "--server", "-logDtpre.iLsfxCIvu", ".", "p"},
	{"-o", "SendEnv=GIT_PROTOCOL", "-p", "2222", "u@h", "git-upload-pack 'repo'"},
	{"-x", "-a", "-oClearAllForwardings=yes", "-oPort=2222", "-oIdentityFile=~/f", "-2", "-s", "--", "u@h", "sftp"},
	{"-o", "LogLevel ERROR", "-o", "Compression yes", "-o", "ServerAliveInterval 30", "-o", "ServerAliveCountMax 10",
		"-o", "StrictHostKeyChecking yes", "h", "CMD"},
	// Other tools, as their sources start ssh.
	{"-T", "-D", "54321", "-o", "ConnectTimeout=15", "h", "bash"},                                                     // VS Code
	{"-v", "-T", "-D", "54321", "-o", "ConnectTimeout=15", "-F", "/dev/null", "u@h", "bash", "--login", "-c", "bash"}, // VS Code
	{"-n", "-tt", "-S", "none", "-o", "ProxyCommand=mosh --family=prefer-inet --fake-proxy -- %h %p", "u@h", "--", "mosh-server new -c 256 -s -l LANG=C"},
	{"-l", "u", "-p", "22", "-o", "ConnectTimeout=30", "-T", "--", "h", "docker", "system", "dial-stdio"},
	{"-o", "SendEnv=GIT_PROTOCOL", "-o", "BatchMode=no", "u@h", "git-lfs-authenticate x/y download"},
	{"h", "-l", "u", "-s", "sftp"}, // restic
	{"-l", "u", "-o", "ControlMaster=auto", "-o", "ControlPath=tramp.%C", "-o", "ControlPersist=no", "-e", "none", "h"}, // Emacs
	{"-x", "-a", "-oForwardX11=no", "h", "nix-store", "--serve", "--write"},
	{"-x", "-M", "-N", "-S", "/tmp/nix/ssh.sock", "-oLocalCommand=echo started", "-oPermitLocalCommand=yes", "h"}, // Nix
	{"-e", "none", "-C", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-i", "/etc/passwd", "-p", "2222", "vagrant@127.0.0.1", "-t", "bash -l"},
	{"-o", "Ciphers=aes128-ctr", "-o", "ServerAliveInterval=10", "-c", "aes256-ctr", "h", "borg", "serve"},
	{"-q", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null", "h", "exit"},
	{"-fNT", "-o", "ExitOnForwardFailure=yes", "-L", "5432:db.internal:5432", "-L", "/tmp/s.sock:db.internal:5433", "h"},
	{"-nNTR", "0.0.0.0:8080:localhost:80", "-o", "ServerAliveInterval=60", "h"},
	{"-A", "-J", "jump1,u@jump2:2222", "-o", "AddKeysToAgent=yes", "u@inner.example.com"},
	// getopt.
	{"-lbar", "baz@h"}, {"baz@h", "-o", "user=foo"}, {"-o", "user=foo", "-lbar", "baz@h"}, {"-vNfF", "none", "h"},
	{"-oPort=23", "h", "-p", "24"}, {"-p", "24", "h", "-oPort=23"}, {"--", "h", "-v"}, {"h", "--", "-x"},
	{"h", "-T", "-l", "late", "cmd", "-p", "1"}, {"-S", "/a", "-S", "/b", "h"}, {"-oControlPath=/a", "-S", "none", "h"},
	{"-l", "--", "h", "-p", "9"}, {"-M", "h"}, {"-MM", "h"}, {"-M", "-M", "-M", "h"}, {"-oControlMaster=auto", "-M", "h"},
	{"user:style@h"}, {"a@b@h"}, {"ssh://u@h:2222"}, {"ssh://u;x=y@h/"}, {"ssh://a%40b@h"}, {"ssh://[::1]:24"}, {"ssh://h."},
	{"H.Example.COM"}, {"127.1"}, {"0x7f.1"}, {"2130706433"}, {"::0001"}, {"1.2.3.4.5"}, {"999.999.999.999"}, {"017.0.0.1"},
	{"h", "a  b", "", "c"}, {"h", ""},
	// Every flag.
	{"-4", "h"}, {"-6", "h"}, {"-46", "h"}, {"-A", "h"}, {"-Aa", "h"}, {"-oForwardAgent=yes", "-a", "h"}, {"-b", "1.2.3.4", "h"},
	{"-B", "eth0", "h"}, {"-C", "h"}, {"-oCompression=no", "-C", "h"}, {"-e", "^]", "-e", "x", "h"}, {"-e", "none", "h"},
	{"-f", "h", "c"}, {"-fN", "h"}, {"-g", "h"}, {"-I", "/lib.so", "h"}, {"-K", "h"}, {"-k", "h"}, {"-n", "h", "c"}, {"-N", "h"},
	{"-q", "h", "c"}, {"-qv", "-F", "none", "h", "c"}, {"-oLogLevel=error", "h"}, {"-oLogLevel=DEBUG", "-F/dev/null", "h"}, {"-oLogLevel=fatal", "-q", "h"},
	{"-s", "h", "sub"}, {"-t", "h", "c"}, {"-tt", "h", "c"}, {"-ttT", "h"}, {"-Tt", "h", "c"}, {"-oRequestTTY=force", "h"}, {"-oRequestTTY=force", "-t", "h", "c"},
	{"-W", "a:1", "h"}, {"-W", "[::1]:1", "-L", "1:a:2", "h"}, {"-W", "a:1", "-oClearAllForwardings=no", "-L", "1:a:2", "h"},
	{"-w", "1:2", "h"}, {"-w", "any", "-oTunnel=ethernet", "h"}, {"-X", "h"}, {"-Y", "h"}, {"-x", "h"}, {"-y", "h", "c"},
	{"-i", "/nonexistent/key", "h"}, {"-i", "/etc/passwd", "-i", "/etc/passwd", "h"}, {"-i", "~/../etc/passwd", "h"},
	// Forwards.
	{"-L", "1:a:2", "-L", "1:a:2", "-L", "[::1]:8:[::2]:9", "-L", "x:8:y:9", "h"}, {"-L", "/a/b:c:1", "-L", "/a/%h:b:1", "h"},
	{"-L", `a\:b:1:c:2`, "h"}, {"-L", "*:1:a:2", "h"}, {"-D", "1080", "-D", "[::1]:1080", "h"}, {"-R", "0:a:1", "-R", "/x:a:1", "-R", "/x:/y", "h"},
	{"-L", "http:a:https", "h"}, {"-L", "${SSMOPT_VALUE}:a:1", "h"},
	{"-oLocalForward=1 a:2", "-oDynamicForward=3", "-oRemoteForward=4 b:5", "-oPermitRemoteOpen=a:1 *:2", "h"},
	// Jumps.
	{"-J", "a", "h"}, {"-J", "a,b@c:22,d", "h"}, {"-J", "u@[::1]:99", "h"}, {"-J", "ssh://u@a:99", "h"}, {"-J", "none", "h"}, {"-J", "1.2.3.4", "h"},
	{"-oProxyCommand=nc %h %p", "-oProxyJump=x", "h"}, {"-oProxyJump=x", "-oProxyCommand=nc", "h"}, {"-oProxyCommand=none", "h"},
	{"-oProxyJump=none", "-oProxyCommand=x", "h"}, {"-oProxyCommand=none", "-oProxyJump=x", "h"},
	// Values.
	{"-oControlPath=~/%C-%h-%p-%r-%n-%l-%L-%u-%i-%d-%k-%%", "-p", "24", "-l", "u", "-oHostKeyAlias=Al", "-oHostname=Real", "h"},
	{"-oControlPath=${SSMOPT_VALUE}/x", "h"}, {"-oControlPath=none", "h"}, {"-oIdentityAgent=none", "h"}, {"-oIdentityAgent=~/a", "h"}, {"-oIdentityAgent=$SSMOPT_VALUE", "h"},
	{"-oIdentityAgent=${SSMOPT_VALUE}", "h"}, {"-oRemoteCommand=echo %h ${X}", "h"}, {"-oLocalCommand=x %T %h", "-oPermitLocalCommand=yes", "h"}, {"-oHostname=%h.example.com", "H"},
	{"-oHostname=10.0.0.1", "h"}, {"-oUserKnownHostsFile=~/a /b/%h", "h"}, {"-oUserKnownHostsFile=none", "h"}, {"-oGlobalKnownHostsFile=none", "h"},
	{"-oUserKnownHostsFile=~/.ssh/known_hosts", "h"}, {"-oUserKnownHostsFile=/dev/null", "h"}, {"-oUpdateHostKeys=ask", "h", "c"}, {"-oUpdateHostKeys=ask", "h"},
	{"-oControlPersist=yes", "h"}, {"-oControlPersist=0", "h"}, {"-oControlPersist=no", "h"}, {"-oControlPersist=1h30m", "h"},
	{"-oConnectTimeout=none", "-oConnectTimeout=5", "h"}, {"-oConnectTimeout=0", "h"}, {"-oServerAliveInterval=1m", "-oServerAliveCountMax=0", "h"},
	{"-oAddKeysToAgent=confirm 5m", "h"}, {"-oAddKeysToAgent=5m", "h"}, {"-oAddKeysToAgent=ask", "h"}, {"-oAddKeysToAgent=confirm", "h"}, {"-oAddKeysToAgent=no", "h"},
	{"-oStrictHostKeyChecking=off", "h"}, {"-oStrictHostKeyChecking=accept-new", "h"}, {"-oStrictHostKeyChecking=YES", "h"}, {"-oVerifyHostKeyDNS=ask", "h"},
	{"-oPubkeyAuthentication=host-bound", "h"}, {"-oPubkeyAuthentication=unbound", "h"}, {"-oPubkeyAuthentication=no", "h"}, {"-oChallengeResponseAuthentication=no", "h"},
	{"-oRekeyLimit=1G 1h", "h"}, {"-oRekeyLimit=default none", "h"}, {"-oRekeyLimit=1.25K", "h"}, {"-oRekeyLimit=99.99G", "h"}, {"-oRekeyLimit=8.7K", "-oRekeyLimit=1K 5", "h"},
	{"-oIPQoS=af21", "h"}, {"-oIPQoS=0x10 0xfe", "h"}, {"-oIPQoS=none 0", "h"}, {"-oSyslogFacility=auth", "-oLogVerbose=a b", "h"}, {"-oStreamLocalBindMask=0117", "-oStreamLocalBindUnlink=yes", "h"},
	{"-oSendEnv=A B_*", "-oSendEnv=-B*", "-oSetEnv=X=1 Y=\"a b\" X=2", "-oSetEnv=Z=1", "h"}, {"-oFingerprintHash=md5", "h"}, {"-oRequiredRSASize=2048", "h"},
	{"-oEscapeChar=none", "h"}, {"-oTunnelDevice=3", "h"}, {"-oCanonicalDomains=a.b C.d.", "h"}, {"-oCanonicalizeHostname=yes", "h"},
	{"-oCanonicalizePermittedCNAMEs=A:b *", "-Jx", "h"}, {"-oForwardAgent=/dev/null", "h"}, {"-oForwardAgent=/nonexistent", "h"}, {"-oForwardX11Timeout=1h", "-oXAuthLocation=/x", "h"},
	{"-oKnownHostsCommand=/x %H", "-oRevokedHostKeys=/r", "-oPKCS11Provider=/p", "-oSecurityKeyProvider=/s", "h"}, {"-oCertificateFile=/a", "-oCertificateFile=/b", "-oCertificateFile=/a", "h"},
	{"-oIdentityFile=none", "h"}, {"-oIdentityFile=/a", "-oIdentityFile=/b", "-oIdentityFile=/a", "h"}, {"-oSessionType=none", "h"}, {"-oSessionType=subsystem", "h"}, {"-oStdinNull=yes", "h"},
	{"-oForkAfterAuthentication=yes", "h", "c"}, {"-oKeepAlive=no", "-oDSAAuthentication=no", "-oSkeyAuthentication=no", "h"}, {"-oHostbasedKeyTypes=ssh-rsa", "h"}, {"-oProtocol=2", "-oCipher=x", "h"},
	{"-oKerberosAuthentication=no", "h"}, {"-oIgnoreUnknown=foo*,bar", "-oFooBar=x", "-obar=y z", "h"}, {"-oKbdInteractiveDevices=pam", "-oBindAddress=::1", "-oAddressFamily=inet6", "h"},
	{"-oHostname=a%%b", "h"}, {"u@"}, {""}, {"-R", "1080", "-R", "[::1]:0", "h"},
}

// configCorpus are files, with the hosts to ask for beside "h".
var configCorpus = []struct {
	name   string
	config string
	files  map[string]string
	args   []string
	hosts  []string
}{
	{name: "first value wins", config: "Port 23\nPort 24\nHost *\n Port 25\n User u\n"},
	{name: "host patterns", config: "Host a* !ab* ?x\n Port 23\nHost !h\n Port 24\nHost * !h\n Port 25\nHost H\n Port 26\n",
		hosts: []string{"a", "abc", "xx", "ax", "H", "other"}},
	{name: "host is the name typed", config: "Host h\n Hostname real\nHost real\n Port 23\nMatch host real\n User m\nMatch originalhost h\n BindAddress 1\n", hosts: []string{"real"}},
	{name: "match", config: "Match user root\n Port 23\nMatch localuser nobody\n Port 24\nMatch host h,i user root,x\n BindAddress b\nMatch host !h,*\n BindInterface i\nMatch !host h\n HostKeyAlias k\n",
		hosts: []string{"i", "j"}},
	{name: "match exec", config: "Match exec \"exit 0\"\n Port 23\nMatch !exec \"exit 3\"\n User e\nMatch exec \"test %h = h -a %n = h -a %p = 23\"\n BindAddress x\nMatch host nope exec \"touch DIR/ran\"\n BindAddress y\n",
		hosts: []string{"i"}},
	{name: "match final", config: "Hostname real\nMatch final host real\n Port 24\nHost real\n User late\nMatch canonical all\n BindAddress c\nMatch all\n BindInterface a\n"},
	{name: "match not final", config: "Match !final\n User first\nMatch final\n Port 9\n"},
	{name: "match with equals", config: "Match host=h user=root\n Port 23\n"},
	{name: "match faults", config: "Match foo x\nMatch\nMatch host\nMatch all x\nMatch exec\nMatch user \"\" host h\nMatch host h # comment\nUser z\n"},
	{name: "include", config: "Include DIR/inc/*.conf\nInclude DIR/none*\nUser after\nHost x\n Include DIR/x.conf\nHost *\n Port 29\n",
		files: map[string]string{"inc/1.conf": "BindAddress one\nHost none\n User never\n", "inc/2.conf": "Host h\n HostKeyAlias two\n", "x.conf": "Port 27\n"}, hosts: []string{"x"}},
	{name: "include in a block that doesn't apply", config: "Host other\n Include DIR/a DIR/b\n", files: map[string]string{"a": "Host h\n Port 23\nMatch all\n User u\n", "b": "Port x\nFoo y\n"}},
	{name: "include of itself", config: "Include DIR/config\n"},
	{name: "include faults", config: "Include DIR/bad\nPort y\n", files: map[string]string{"bad": "Port x\n"}},
	{name: "quoting", config: "User \"a b\"c\nProxyCommand = foo \"a b\" # x\nSetEnv 'A=x y' B=\"q\\\"q\" C=a\\ b # comment\nIdentityFile=\"/a b\"\n \t Port\t23 \f\n\"HostKeyAlias\" k\n"},
	{name: "equals", config: "Port==23\nUser = = u\nPort=24\nBindAddress =a\n"},
	{name: "unbalanced quotes", config: "User \"a\nHost 'x\nFoo \"\n"},
	{name: "odd lines", config: "\n#c\n  # c\nPort\nPort # c\nPort \"\" \nHost\nHost \"\"\nPort\"22\"\nPort 23#c\n\xff 1\nPort\" x\n= 3\n"},
	{name: "no newline at the end", config: "Port 23\r\nUser u"},
	{name: "every kind of fault", config: "Port 0\nPort 65536\nPort 2x\nBatchMode x\nBatchMode \"\"\nBatchMode yes no\nConnectTimeout 1x\nConnectTimeout \"\"\nNumberOfPasswordPrompts x\nNumberOfPasswordPrompts \"\"\nNumberOfPasswordPrompts -1\nNumberOfPasswordPrompts 99999999999\n" +
		"RekeyLimit 5X\nRekeyLimit 5\nRekeyLimit 99999999999999999999\nRekeyLimit 1G x\nRekeyLimit \"\"\nIdentityFile \"\"\nControlPersist x\nControlPersist \"\"\nControlMaster x\nEscapeChar ab\nEscapeChar \"\"\n" +
		"LogLevel x\nSyslogFacility x\nCiphers zz\nCiphers \"\"\nMACs zz\nKexAlgorithms a\nKexAlgorithms \"\"\nHostKeyAlgorithms b\nCASignatureAlgorithms +\nPubkeyAcceptedAlgorithms *zz\nTunnel x\nTunnelDevice x\nTunnelDevice 1:x\n" +
		"LocalForward 1\nLocalForward 1 a\nLocalForward \"\"\nDynamicForward a\nRemoteForward x y\nSendEnv A=b\nSendEnv \"\"\nSetEnv A\nStreamLocalBindMask 9\nStreamLocalBindMask 1777\nStreamLocalBindMask \"\"\nIPQoS x\nIPQoS 1 y\n" +
		"FingerprintHash x\nAddKeysToAgent x\nAddKeysToAgent yes 5\nAddKeysToAgent confirm x\nAddKeysToAgent \"\"\nCanonicalDomains a..b\nCanonicalDomains -a\nCanonicalDomains a_b/\nCanonicalDomains none a\nCanonicalizePermittedCNAMEs a\nCanonicalizePermittedCNAMEs a: \nUserKnownHostsFile none a\nUserKnownHostsFile a \"\"\n" +
		"LogVerbose a none\nIdentityAgent $A-\nIdentityAgent ${NOPE}\nForwardAgent \"\"\nForwardAgent ${NOPE}\nProxyJump a b@\nProxyJump @a\nInclude \"\"\nStrictHostKeyChecking maybe\nVerifyHostKeyDNS x\nRequestTTY x\nSessionType x\nAddressFamily x\nCanonicalizeHostname x\nPubkeyAuthentication x\nCompression x\nHostname \"\"\nFoo\nFoo bar\n"},
	{name: "fatal fault", config: "PermitRemoteOpen a\n"}, {name: "fatal fault of a host", config: "PermitRemoteOpen [a\n"}, {name: "permit alone", config: "PermitRemoteOpen any a:1\n"},
	{name: "deprecated", config: "Protocol 1\nCipher x\nUseRoaming no\nRSAAuthentication yes\nCompressionLevel 6\nKerberosAuthentication no\n"},
	{name: "deprecated, verbose", config: "Cipher x\nIgnoreUnknown b*\nBar 1\nHost x !h\nHost h\n", args: []string{"-oBatchMode=no"}},
	{name: "ignore unknown", config: "IgnoreUnknown foo,b*\nFoo bar\nBAR x\nIgnoreUnknown c*\nCat 1\n"},
	{name: "agent forwards", config: "ForwardAgent yes\nForwardAgent /dev/null\n"},
	{name: "agent forward path, but -a", config: "ForwardAgent /dev/null\n", args: []string{"-a"}},
	{name: "command twice", config: "RemoteCommand x\n", hosts: []string{"i"}},
	{name: "jump none", config: "ProxyJump none\nProxyCommand y\nProxyJump z\n"}, {name: "jump then command", config: "ProxyJump a\nProxyCommand y\n"}, {name: "command then jump", config: "ProxyCommand y\nProxyJump a\n"},
	{name: "jump in a block that doesn't apply", config: "Host x\n ProxyJump a\nHost *\n ProxyJump b:33\n", hosts: []string{"x"}},
	{name: "jump with comment", config: "ProxyJump a,b # c\n"},
	{name: "syslog facility of another block", config: "Host x\n SyslogFacility auth\n"},
	{name: "directory", config: "Include DIR/sub\n", files: map[string]string{"sub/x": ""}},
	{name: "world-writable include", config: "Include /tmp/../DIR/nosuch\n"},
	{name: "log verbose", config: "LogVerbose a b\nLogVerbose c\n"},
	{name: "user tokens of 9.2 stay", config: "User plain\n"},
	// What people have for nodes: -G shows it as it is written.
	{name: "AWS's guide", config: "# SSH over Session Manager\nHost i-* mi-*\n    ProxyCommand sh -c \"aws ssm start-session --target %h --document-name AWS-StartSSHSession --parameters 'portNumber=%p'\"\n",
		hosts: []string{"i-0123456789abcdef0", "mi-0123456789abcdef0", "I-0123ABCD"}},
	{name: "AWS's guide with more", config: "Host i-*.* mi-*.*\n  ProxyCommand bash -c \"aws ssm start-session --target $(echo %h|cut -d'.' -f1) --region $(echo %h|cut -d'.' -f2) --document-name AWS-StartSSHSession --parameters 'portNumber=%p'\"\n  User ec2-user\n  IdentityFile ~/.ssh/%h.pem\nHost bastion\n  Hostname i-0123456789abcdef0\n  ProxyCommand=aws --profile \"my team\" ssm start-session --target %h --document-name AWS-StartSSHSession --parameters portNumber=%p # no comment\n",
		hosts: []string{"i-0123456789abcdef0.eu-west-1", "bastion"}},
	{name: "AWS's guide for Windows", config: "host i-* mi-*\n    ProxyCommand C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe \"aws ssm start-session --target %h --document-name AWS-StartSSHSession --parameters portNumber=%p\"\n",
		hosts: []string{"i-0123456789abcdef0"}},
	{name: "distribution's and user's together", config: "Include DIR/user\nInclude DIR/system\n", files: map[string]string{
		"user":   "Host *.corp !bad.corp\n  ProxyJump bastion.corp\n  User me\nHost bastion.corp\n  ProxyJump none\nMatch originalhost git.corp exec \"test -n '%r'\"\n  Port 2222\n",
		"system": "Host *\n    SendEnv LANG LC_*\n    HashKnownHosts yes\n    GSSAPIAuthentication yes\n    ForwardX11Trusted yes\n"}, hosts: []string{"x.corp", "bad.corp", "bastion.corp", "git.corp"}},
}

// errorCorpus are command lines that stock ssh refuses before it connects.
var errorCorpus = [][]string{
	{}, {"-G"}, {"-Z"}, {"-x@"}, {"-p"}, {"-vo"}, {"-"}, {"--"}, {"-1", "h"}, {"-G", "@h"},
	{"-o", "ControlPersist"}, {"-oFoo=bar", "h"}, {"-Gq", "-oFoo=bar", "h"}, {"-oPort=0", "h"}, {"-oPort=x", "h"}, {"-oUser=\"a b\"c\"", "h"},
	{"-oHost=x", "h"}, {"-oMatch=all", "h"}, {"-oInclude=x", "h"}, {"-oBatchMode=", "h"}, {"-oBatchMode=\"\"", "h"}, {"-oKexAlgorithms=zz", "h"},
	{"-oIdentityAgent=${NOPE}", "h"}, {"-oKerberosAuthentication=x", "-oFoo=1", "h"}, {"-oPermitRemoteOpen=a", "h"},
	{"-p", "0", "h"}, {"-p", "65536", "h"}, {"-p", "2000blah", "h"}, {"-p", "", "h"}, {"-e", "abc", "h"}, {"-e", "", "h"}, {"-c", "zz", "h"}, {"-c", "-aes*", "h"}, {"-m", "zz", "h"}, {"-m", "+hmac-sha1", "h"},
	{"-L", "bad", "h"}, {"-L", "1:a:0", "h"}, {"-L", "0:a:1", "h"}, {"-L", "1:2:3:4:5", "h"}, {"-L", "[a:1:b:2", "h"}, {"-L", "", "h"}, {"-L", `1:a:2\`, "h"}, {"-L", "${NOPE}:a:1", "h"}, {"-D", "bad", "h"}, {"-D", "1:a:2", "h"}, {"-D", "0", "h"},
	{"-R", "bad", "h"}, {"-R", "1:a", "h"}, {"-W", "x", "h"}, {"-W", "a:0", "h"}, {"-w", "x", "h"}, {"-J", "a", "-J", "b", "h"}, {"-J", "@a", "h"}, {"-J", "1.2.3.4,::1", "h"}, {"-oProxyCommand=x", "-J", "a", "h"},
	{"-O", "foo", "h"}, {"-O", "check", "-O", "exit", "h"}, {"-O", "check", "-W", "a:1", "h"}, {"-W", "a:1", "-O", "check", "h"}, {"-W", "a:1", "-W", "b:1", "h"}, {"-F/dev/null", "-O", "check", "h"}, {"-F/dev/null", "-S", "none", "-O", "check", "h"},
	{"-Ns", "h", "x"}, {"-sN", "h", "x"}, {"-s", "h"}, {"-f", "h"}, {"-y", "-E", "/dev/null", "h"}, {"-Qnope"}, {"-Q", ""},
	{"-G", "--", "-oX"}, {"-G", "a`b`"}, {"-G", "$(x)"}, {"-G", "a b"}, {"-G", "a\tb"}, {"-G", "a;b"}, {"-G", "a\x01b"}, {"-G", "a{b"}, {"-G", "a,b"},
	{"-G", "-l", "-x", "h"}, {"-G", "-l", "a;b", "h"}, {"-G", "-l", "${FOO}", "h"}, {"-G", "-l", "a -b", "h"}, {"-G", "-l", `a\`, "h"}, {"-G", "-oUser=a|b", "h"}, {"-G", "-l", "a;", "b;"},
	{"-G", "ssh://h/path"}, {"-G", "ssh://@h"}, {"-G", "ssh://h:0"}, {"-G", "ssh://"}, {"-G", "ssh://u%zz@h"}, {"-G", "ssh://h:x"}, {"-G", "ssh://[::1"},
	{"-F", "/nonexistent", "-G", "h"}, {"-F", "bad", "-G", "h"}, {"-q", "-F", "bad", "-G", "h"}, {"-oLogLevel=QUIET", "-F", "bad", "-G", "h"}, {"-F", "bad", "-O", "check", "h"},
	{"-G", "-oHostname=%x", "h"}, {"-G", "-oHostname=a%", "h"}, {"-G", "-oControlPath=${NOPE}", "h"}, {"-G", "-oControlPath=${", "h"}, {"-G", "-oControlPath=${}", "h"}, {"-G", "-oControlPath=%T", "h"}, {"-G", "-oControlPath=~nosuchuser/x", "h"}, {"-G", "-oRemoteCommand=%Z", "h"},
	{"-G", "-J", "h", "h"}, {"-G", "-oRemoteCommand=a", "h", "b"}, {"-G", "-oConnectionAttempts=0", "h"}, {"-G", "-oProxyCommand=-", "-oProxyUseFdpass=yes", "h"}, {"-G", "-oUserKnownHostsFile=none", "-oGlobalKnownHostsFile=none x", "h"},
	{"-G", "-oForwardAgent=/nonexistent", "-oExitOnForwardFailure=yes", "h"}, {"-G", "-i", "/nonexistent", "-oForwardAgent=/nonexistent", "-oExitOnForwardFailure=yes", "h"}, {"-i", "/nonexistent", "-p", "x", "h"},
}
