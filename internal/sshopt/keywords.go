package sshopt

// keyword is an entry of the table: how its arguments are read, the field of Options (or of the
// parser, where the value isn't final yet) they go to, and the words it may have. Host, Match and
// Include have no parse function: they change how the file is read, in config.go.
type keyword struct {
	name   string // lower case
	parse  func(*line) error
	field  func(*parser) any
	states []state
}

// namedKeyword is what lookup finds.
type namedKeyword struct {
	keyword
	id keywordID
}

// Keywords, in the order of the table.
const (
	kwAddKeysToAgent keywordID = iota
	kwAddressFamily
	kwBatchMode
	kwBindAddress
	kwBindInterface
	kwCanonicalDomains
	kwCanonicalizeFallbackLocal
	kwCanonicalizeHostname
	kwCanonicalizeMaxDots
	kwCanonicalizePermittedCNAMEs
	kwCASignatureAlgorithms
	kwCertificateFile
	kwChannelTimeout
	kwCheckHostIP
	kwCiphers
	kwClearAllForwardings
	kwCompression
	kwConnectionAttempts
	kwConnectTimeout
	kwControlMaster
	kwControlPath
	kwControlPersist
	kwDynamicForward
	kwEnableEscapeCommandline
	kwEnableSSHKeysign
	kwEscapeChar
	kwExitOnForwardFailure
	kwFingerprintHash
	kwForkAfterAuthentication
	kwForwardAgent
	kwForwardX11
	kwForwardX11Timeout
	kwForwardX11Trusted
	kwGatewayPorts
	kwGlobalKnownHostsFile
	kwGSSAPIAuthentication
	kwGSSAPIDelegateCredentials
	kwHashKnownHosts
	kwHost
	kwHostbasedAcceptedAlgorithms
	kwHostbasedAuthentication
	kwHostKeyAlgorithms
	kwHostKeyAlias
	kwHostname
	kwIdentitiesOnly
	kwIdentityAgent
	kwIdentityFile
	kwIgnoreUnknown
	kwInclude
	kwIPQoS
	kwKbdInteractiveAuthentication
	kwKbdInteractiveDevices
	kwKexAlgorithms
	kwKnownHostsCommand
	kwLocalCommand
	kwLocalForward
	kwLogLevel
	kwLogVerbose
	kwMACs
	kwMatch
	kwNoHostAuthenticationForLocalhost
	kwNumberOfPasswordPrompts
	kwObscureKeystrokeTiming
	kwPasswordAuthentication
	kwPermitLocalCommand
	kwPermitRemoteOpen
	kwPKCS11Provider
	kwPort
	kwPreferredAuthentications
	kwProxyCommand
	kwProxyJump
	kwProxyUseFdpass
	kwPubkeyAcceptedAlgorithms
	kwPubkeyAuthentication
	kwRefuseConnection
	kwRekeyLimit
	kwRemoteCommand
	kwRemoteForward
	kwRequestTTY
	kwRequiredRSASize
	kwRevokedHostKeys
	kwSecurityKeyProvider
	kwSendEnv
	kwServerAliveCountMax
	kwServerAliveInterval
	kwSessionType
	kwSetEnv
	kwSSMAnswerAhead
	kwSSMDocument
	kwSSMEndpoint
	kwSSMKeepAlive
	kwSSMMultiplex
	kwSSMPayloadBytes
	kwSSMPingInterval
	kwSSMPort
	kwSSMProfile
	kwSSMQueueTimeout
	kwSSMRegion
	kwSSMResume
	kwSSMSendSignals
	kwSSMSpareChannels
	kwSSMTarget
	kwSSMWait
	kwSSMWindowBytes
	kwStdinNull
	kwStreamLocalBindMask
	kwStreamLocalBindUnlink
	kwStrictHostKeyChecking
	kwSyslogFacility
	kwTag
	kwTCPKeepAlive
	kwTunnel
	kwTunnelDevice
	kwUpdateHostKeys
	kwUser
	kwUserKnownHostsFile
	kwVerifyHostKeyDNS
	kwVersionAddendum
	kwVisualHostKey
	kwWarnWeakCrypto
	kwXAuthLocation

	numKeywords

	// Words that are known, but have no effect: silently, with a line at debug1, with an error line
	// that doesn't count as an error.
	kwIgnored
	kwDeprecated
	kwUnsupported

	kwNone
)

// keywords is OpenSSH's table (readconf.c, keywords), 9.2's and what 10.x adds, with this
// program's own, whose names begin with SSM. It is sorted by name.
var keywords = [numKeywords]keyword{
	kwAddKeysToAgent:                   {"addkeystoagent", parseAddKeys, nil, nil},
	kwAddressFamily:                    {"addressfamily", parseState, func(p *parser) any { return &p.o.AddressFamily }, statesFamily},
	kwBatchMode:                        {"batchmode", parseState, func(p *parser) any { return &p.o.BatchMode }, statesFlag},
	kwBindAddress:                      {"bindaddress", parseString, func(p *parser) any { return &p.o.BindAddress }, nil},
	kwBindInterface:                    {"bindinterface", parseString, func(p *parser) any { return &p.o.BindInterface }, nil},
	kwCanonicalDomains:                 {"canonicaldomains", parseCanonicalDomains, nil, nil},
	kwCanonicalizeFallbackLocal:        {"canonicalizefallbacklocal", parseState, func(p *parser) any { return &p.o.CanonicalizeFallbackLocal }, statesFlag},
	kwCanonicalizeHostname:             {"canonicalizehostname", parseState, func(p *parser) any { return &p.o.CanonicalizeHostname }, statesCanonicalize},
	kwCanonicalizeMaxDots:              {"canonicalizemaxdots", parseInt, func(p *parser) any { return &p.o.CanonicalizeMaxDots }, nil},
	kwCanonicalizePermittedCNAMEs:      {"canonicalizepermittedcnames", parsePermittedCNAMEs, nil, nil},
	kwCASignatureAlgorithms:            {"casignaturealgorithms", parseKeyAlgorithms, func(p *parser) any { return &p.caSignatures }, nil},
	kwCertificateFile:                  {"certificatefile", parseCertificateFile, nil, nil},
	kwChannelTimeout:                   {"channeltimeout", parseChannelTimeout, nil, nil},
	kwCheckHostIP:                      {"checkhostip", parseState, func(p *parser) any { return &p.o.CheckHostIP }, statesFlag},
	kwCiphers:                          {"ciphers", parseCiphers, func(p *parser) any { return &p.ciphers }, nil},
	kwClearAllForwardings:              {"clearallforwardings", parseState, func(p *parser) any { return &p.o.ClearAllForwardings }, statesFlag},
	kwCompression:                      {"compression", parseState, func(p *parser) any { return &p.o.Compression }, statesCompression},
	kwConnectionAttempts:               {"connectionattempts", parseInt, func(p *parser) any { return &p.o.ConnectionAttempts }, nil},
	kwConnectTimeout:                   {"connecttimeout", parseDuration, func(p *parser) any { return &p.o.ConnectTimeout }, nil},
	kwControlMaster:                    {"controlmaster", parseState, func(p *parser) any { return &p.o.ControlMaster }, statesMaster},
	kwControlPath:                      {"controlpath", parseString, func(p *parser) any { return &p.o.ControlPath }, nil},
	kwControlPersist:                   {"controlpersist", parseControlPersist, nil, nil},
	kwDynamicForward:                   {"dynamicforward", parseDynamicForward, nil, nil},
	kwEnableEscapeCommandline:          {"enableescapecommandline", parseState, func(p *parser) any { return &p.o.EnableEscapeCommandline }, statesFlag},
	kwEnableSSHKeysign:                 {"enablesshkeysign", parseState, func(p *parser) any { return &p.o.EnableSSHKeysign }, statesFlag},
	kwEscapeChar:                       {"escapechar", parseEscapeChar, nil, nil},
	kwExitOnForwardFailure:             {"exitonforwardfailure", parseState, func(p *parser) any { return &p.o.ExitOnForwardFailure }, statesFlag},
	kwFingerprintHash:                  {"fingerprinthash", parseFingerprintHash, nil, nil},
	kwForkAfterAuthentication:          {"forkafterauthentication", parseState, func(p *parser) any { return &p.o.ForkAfterAuthentication }, statesFlag},
	kwForwardAgent:                     {"forwardagent", parseForwardAgent, nil, nil},
	kwForwardX11:                       {"forwardx11", parseState, func(p *parser) any { return &p.o.ForwardX11 }, statesFlag},
	kwForwardX11Timeout:                {"forwardx11timeout", parseDuration, func(p *parser) any { return &p.o.ForwardX11Timeout }, nil},
	kwForwardX11Trusted:                {"forwardx11trusted", parseState, func(p *parser) any { return &p.o.ForwardX11Trusted }, statesFlag},
	kwGatewayPorts:                     {"gatewayports", parseState, func(p *parser) any { return &p.o.GatewayPorts }, statesFlag},
	kwGlobalKnownHostsFile:             {"globalknownhostsfile", parseHostsFiles, func(p *parser) any { return &p.o.GlobalKnownHostsFile }, nil},
	kwGSSAPIAuthentication:             {"gssapiauthentication", parseState, func(p *parser) any { return &p.o.GSSAPIAuthentication }, statesFlag},
	kwGSSAPIDelegateCredentials:        {"gssapidelegatecredentials", parseState, func(p *parser) any { return &p.o.GSSAPIDelegateCredentials }, statesFlag},
	kwHashKnownHosts:                   {"hashknownhosts", parseState, func(p *parser) any { return &p.o.HashKnownHosts }, statesFlag},
	kwHost:                             {"host", nil, nil, nil},
	kwHostbasedAcceptedAlgorithms:      {"hostbasedacceptedalgorithms", parseKeyAlgorithms, func(p *parser) any { return &p.hostbased }, nil},
	kwHostbasedAuthentication:          {"hostbasedauthentication", parseState, func(p *parser) any { return &p.o.HostbasedAuthentication }, statesFlag},
	kwHostKeyAlgorithms:                {"hostkeyalgorithms", parseKeyAlgorithms, func(p *parser) any { return &p.hostKeys }, nil},
	kwHostKeyAlias:                     {"hostkeyalias", parseString, func(p *parser) any { return &p.o.HostKeyAlias }, nil},
	kwHostname:                         {"hostname", parseString, func(p *parser) any { return &p.o.Hostname }, nil},
	kwIdentitiesOnly:                   {"identitiesonly", parseState, func(p *parser) any { return &p.o.IdentitiesOnly }, statesFlag},
	kwIdentityAgent:                    {"identityagent", parseIdentityAgent, nil, nil},
	kwIdentityFile:                     {"identityfile", parseIdentityFile, nil, nil},
	kwIgnoreUnknown:                    {"ignoreunknown", parseString, func(p *parser) any { return &p.o.IgnoreUnknown }, nil},
	kwInclude:                          {"include", nil, nil, nil},
	kwIPQoS:                            {"ipqos", parseIPQoS, nil, nil},
	kwKbdInteractiveAuthentication:     {"kbdinteractiveauthentication", parseState, func(p *parser) any { return &p.o.KbdInteractiveAuthentication }, statesFlag},
	kwKbdInteractiveDevices:            {"kbdinteractivedevices", parseString, func(p *parser) any { return &p.o.KbdInteractiveDevices }, nil},
	kwKexAlgorithms:                    {"kexalgorithms", parseKexAlgorithms, func(p *parser) any { return &p.kex }, nil},
	kwKnownHostsCommand:                {"knownhostscommand", parseRest, func(p *parser) any { return &p.o.KnownHostsCommand }, nil},
	kwLocalCommand:                     {"localcommand", parseRest, func(p *parser) any { return &p.o.LocalCommand }, nil},
	kwLocalForward:                     {"localforward", parseLocalForward, nil, nil},
	kwLogLevel:                         {"loglevel", parseLogLevel, nil, nil},
	kwLogVerbose:                       {"logverbose", parseLogVerbose, nil, nil},
	kwMACs:                             {"macs", parseMACs, func(p *parser) any { return &p.macs }, nil},
	kwMatch:                            {"match", nil, nil, nil},
	kwNoHostAuthenticationForLocalhost: {"nohostauthenticationforlocalhost", parseState, func(p *parser) any { return &p.o.NoHostAuthenticationForLocalhost }, statesFlag},
	kwNumberOfPasswordPrompts:          {"numberofpasswordprompts", parseInt, func(p *parser) any { return &p.o.NumberOfPasswordPrompts }, nil},
	kwObscureKeystrokeTiming:           {"obscurekeystroketiming", parseObscureTiming, nil, nil},
	kwPasswordAuthentication:           {"passwordauthentication", parseState, func(p *parser) any { return &p.o.PasswordAuthentication }, statesFlag},
	kwPermitLocalCommand:               {"permitlocalcommand", parseState, func(p *parser) any { return &p.o.PermitLocalCommand }, statesFlag},
	kwPermitRemoteOpen:                 {"permitremoteopen", parsePermitRemoteOpen, nil, nil},
	kwPKCS11Provider:                   {"pkcs11provider", parseString, func(p *parser) any { return &p.o.PKCS11Provider }, nil},
	kwPort:                             {"port", parsePortKeyword, nil, nil},
	kwPreferredAuthentications:         {"preferredauthentications", parseString, func(p *parser) any { return &p.preferredAuths }, nil},
	kwProxyCommand:                     {"proxycommand", parseProxyCommand, nil, nil},
	kwProxyJump:                        {"proxyjump", parseProxyJump, nil, nil},
	kwProxyUseFdpass:                   {"proxyusefdpass", parseState, func(p *parser) any { return &p.o.ProxyUseFdpass }, statesFlag},
	kwPubkeyAcceptedAlgorithms:         {"pubkeyacceptedalgorithms", parseKeyAlgorithms, func(p *parser) any { return &p.pubkeys }, nil},
	kwPubkeyAuthentication:             {"pubkeyauthentication", parseState, func(p *parser) any { return &p.o.PubkeyAuthentication }, statesPubkey},
	kwRefuseConnection:                 {"refuseconnection", parseRefuse, nil, nil},
	kwRekeyLimit:                       {"rekeylimit", parseRekeyLimit, nil, nil},
	kwRemoteCommand:                    {"remotecommand", parseRest, func(p *parser) any { return &p.o.RemoteCommand }, nil},
	kwRemoteForward:                    {"remoteforward", parseRemoteForward, nil, nil},
	kwRequestTTY:                       {"requesttty", parseState, func(p *parser) any { return &p.o.RequestTTY }, statesTTY},
	kwRequiredRSASize:                  {"requiredrsasize", parseInt, func(p *parser) any { return &p.o.RequiredRSASize }, nil},
	kwRevokedHostKeys:                  {"revokedhostkeys", parseRevokedHostKeys, nil, nil},
	kwSecurityKeyProvider:              {"securitykeyprovider", parseString, func(p *parser) any { return &p.o.SecurityKeyProvider }, nil},
	kwSendEnv:                          {"sendenv", parseSendEnv, nil, nil},
	kwServerAliveCountMax:              {"serveralivecountmax", parseInt, func(p *parser) any { return &p.o.ServerAliveCountMax }, nil},
	kwServerAliveInterval:              {"serveraliveinterval", parseDuration, func(p *parser) any { return &p.o.ServerAliveInterval }, nil},
	kwSessionType:                      {"sessiontype", parseState, func(p *parser) any { return &p.o.SessionType }, statesSession},
	kwSetEnv:                           {"setenv", parseSetEnv, nil, nil},
	kwSSMAnswerAhead:                   {"ssmanswerahead", parseState, func(p *parser) any { return &p.o.SSMAnswerAhead }, statesFlag},
	kwSSMDocument:                      {"ssmdocument", parseString, func(p *parser) any { return &p.o.SSMDocument }, nil},
	kwSSMEndpoint:                      {"ssmendpoint", parseString, func(p *parser) any { return &p.o.SSMEndpoint }, nil},
	kwSSMKeepAlive:                     {"ssmkeepalive", parseSSMSpan, func(p *parser) any { return &p.o.SSMKeepAlive }, nil},
	kwSSMMultiplex:                     {"ssmmultiplex", parseState, func(p *parser) any { return &p.o.SSMMultiplex }, statesFlag},
	kwSSMPayloadBytes:                  {"ssmpayloadbytes", parseSSMInt, func(p *parser) any { return &p.o.SSMPayloadBytes }, nil},
	kwSSMPingInterval:                  {"ssmpinginterval", parseSSMInterval, func(p *parser) any { return &p.o.SSMPingInterval }, nil},
	kwSSMPort:                          {"ssmport", parseSSMPort, func(p *parser) any { return &p.o.SSMPort }, nil},
	kwSSMProfile:                       {"ssmprofile", parseString, func(p *parser) any { return &p.o.SSMProfile }, nil},
	kwSSMQueueTimeout:                  {"ssmqueuetimeout", parseSSMSpan, func(p *parser) any { return &p.o.SSMQueueTimeout }, nil},
	kwSSMRegion:                        {"ssmregion", parseString, func(p *parser) any { return &p.o.SSMRegion }, nil},
	kwSSMResume:                        {"ssmresume", parseSSMSpan, func(p *parser) any { return &p.o.SSMResume }, nil},
	kwSSMSendSignals:                   {"ssmsendsignals", parseState, func(p *parser) any { return &p.o.SSMSendSignals }, statesFlag},
	kwSSMSpareChannels:                 {"ssmsparechannels", parseInt, func(p *parser) any { return &p.o.SSMSpareChannels }, nil},
	kwSSMTarget:                        {"ssmtarget", parseString, func(p *parser) any { return &p.o.SSMTarget }, nil},
	kwSSMWait:                          {"ssmwait", parseSSMSpan, func(p *parser) any { return &p.o.SSMWait }, nil},
	kwSSMWindowBytes:                   {"ssmwindowbytes", parseSSMInt, func(p *parser) any { return &p.o.SSMWindowBytes }, nil},
	kwStdinNull:                        {"stdinnull", parseState, func(p *parser) any { return &p.o.StdinNull }, statesFlag},
	kwStreamLocalBindMask:              {"streamlocalbindmask", parseBindMask, nil, nil},
	kwStreamLocalBindUnlink:            {"streamlocalbindunlink", parseState, func(p *parser) any { return &p.o.StreamLocalBindUnlink }, statesFlag},
	kwStrictHostKeyChecking:            {"stricthostkeychecking", parseState, func(p *parser) any { return &p.o.StrictHostKeyChecking }, statesStrict},
	kwSyslogFacility:                   {"syslogfacility", parseSyslogFacility, nil, nil},
	kwTag:                              {"tag", parseString, func(p *parser) any { return &p.o.Tag }, nil},
	kwTCPKeepAlive:                     {"tcpkeepalive", parseState, func(p *parser) any { return &p.o.TCPKeepAlive }, statesFlag},
	kwTunnel:                           {"tunnel", parseState, func(p *parser) any { return &p.o.Tunnel }, statesTunnel},
	kwTunnelDevice:                     {"tunneldevice", parseTunnelDeviceKeyword, nil, nil},
	kwUpdateHostKeys:                   {"updatehostkeys", parseState, func(p *parser) any { return &p.o.UpdateHostKeys }, statesYesNoAsk},
	kwUser:                             {"user", parseString, func(p *parser) any { return &p.o.User }, nil},
	kwUserKnownHostsFile:               {"userknownhostsfile", parseHostsFiles, func(p *parser) any { return &p.o.UserKnownHostsFile }, nil},
	kwVerifyHostKeyDNS:                 {"verifyhostkeydns", parseState, func(p *parser) any { return &p.o.VerifyHostKeyDNS }, statesYesNoAsk},
	kwVersionAddendum:                  {"versionaddendum", parseVersionAddendum, nil, nil},
	kwVisualHostKey:                    {"visualhostkey", parseState, func(p *parser) any { return &p.o.VisualHostKey }, statesFlag},
	kwWarnWeakCrypto:                   {"warnweakcrypto", parseWeakCrypto, nil, nil},
	kwXAuthLocation:                    {"xauthlocation", parseString, func(p *parser) any { return &p.o.XAuthLocation }, nil},
}

// aliases are other names of keywords and the names that are known but not obeyed, sorted.
var aliases = [...]struct {
	name string
	id   keywordID
}{
	{"afstokenpassing", kwUnsupported},
	{"challengeresponseauthentication", kwKbdInteractiveAuthentication},
	{"cipher", kwDeprecated},
	{"compressionlevel", kwUnsupported},
	{"dsaauthentication", kwPubkeyAuthentication},
	{"fallbacktorsh", kwDeprecated},
	{"globalknownhostsfile2", kwDeprecated},
	{"gssapiclientidentity", kwIgnored},
	{"gssapikexalgorithms", kwIgnored},
	{"gssapikeyexchange", kwIgnored},
	{"gssapirenewalforcesrekey", kwIgnored},
	{"gssapiserveridentity", kwIgnored},
	{"gssapitrustdns", kwIgnored},
	{"hostbasedkeytypes", kwHostbasedAcceptedAlgorithms},
	{"identityfile2", kwIdentityFile},
	{"keepalive", kwTCPKeepAlive},
	{"kerberosauthentication", kwUnsupported},
	{"kerberostgtpassing", kwUnsupported},
	{"protocol", kwIgnored},
	{"pubkeyacceptedkeytypes", kwPubkeyAcceptedAlgorithms},
	{"rhostsauthentication", kwDeprecated},
	{"rhostsrsaauthentication", kwUnsupported},
	{"rsaauthentication", kwUnsupported},
	{"skeyauthentication", kwKbdInteractiveAuthentication},
	{"smartcarddevice", kwPKCS11Provider},
	{"tisauthentication", kwKbdInteractiveAuthentication},
	{"useprivilegedport", kwDeprecated},
	{"userknownhostsfile2", kwDeprecated},
	{"useroaming", kwDeprecated},
	{"usersh", kwDeprecated},
}

// lookup finds a keyword by its name in lower case. The id is kwNone when there is none.
func lookup(name string) namedKeyword {
	low, high := 0, len(keywords)
	for low < high {
		switch mid := (low + high) / 2; {
		case keywords[mid].name == name:
			return namedKeyword{keywords[mid], keywordID(mid)}
		case keywords[mid].name < name:
			low = mid + 1
		default:
			high = mid
		}
	}
	for _, a := range aliases {
		switch {
		case a.name != name:
		case a.id < numKeywords:
			return namedKeyword{keywords[a.id], a.id}
		default:
			return namedKeyword{keyword{name: name}, a.id}
		}
	}
	return namedKeyword{id: kwNone}
}
