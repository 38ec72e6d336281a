// Package channel runs ssmchannel and awsapi against the lab: multiplexed ports, shells, encryption.
// The lab's agent is code of its own, its end of smux is the library that the real agent uses.
package channel
