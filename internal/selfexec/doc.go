// Package selfexec starts this program again, as a child that outlives its caller. It is what a Go
// program has in place of fork(2).
//
//	child, err := selfexec.Start(ctx, selfexec.Spec{Args: []string{"internal-master", path}, Options: opts})
//	err = child.WaitReady(ctx)
//
// and in the child:
//
//	parent, err := selfexec.Inherit()
//	parent.Options(&opts)
//	ctx := parent.Context(ctx)   // ends when the caller dies before Ready
//	…                            // may still use the caller's terminal
//	parent.Detach(syscall.SIGINT)
//	parent.Ready()               // or parent.Fail(text, code)
//
// What passes between them:
//
//	argv         ssm-ssh ARGS…, so that ps explains itself
//	environment  the names of plainNames only, and SSM_SSH_SELFEXEC=OPTIONS,READY,EXTRA…: the numbers
//	             of the descriptors below. The caller's environment, secrets included, travels in
//	             the options; /proc/PID/environ shows what exec was given and nothing later.
//	OPTIONS      pipe from the caller: one JSON value {env, options}, then nothing. The caller holds
//	             it open until the child is ready: its end before that says that the caller has died.
//	READY        pipe to the caller: one JSON value {ok} or {text, code}, then its end.
//	EXTRA…       Spec.ExtraFiles, in order.
//
// The child begins in the caller's session and process group, so that it may ask on the caller's
// terminal and an interrupt from there ends both. Inherit closes every descriptor that the caller
// happened to hold; Detach gives up stdin, stdout, stderr, terminal, session and working folder.
//
// What this package doesn't know: what the child does.
//
// Goroutines:
//
//	Child.reap      Child         the child has exited; closes Done
//	Parent.watch    Parent        end of the options pipe, or Ready and Fail, which wait for it
//	Parent.Context  its canceler  the cancel function, which waits for it; or the end of watch
package selfexec
