package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ipc is the folder by which the agent and a session worker talk to each other. Each of the two watches it
// by an inotify instance of its own (filewatcherchannel.go: NewFileWatcherChannel), of which a user has 128
// by default (fs.inotify.max_user_instances): sessions that nobody ends use them up. Nothing is written to
// it here.
type ipc struct {
	dir     string
	watches [2]int // the agent's and the worker's
}

// openIPC makes the folder of a session and watches it from both ends.
func openIPC(parent, session string) (*ipc, error) {
	c := &ipc{dir: filepath.Join(parent, session), watches: [2]int{-1, -1}}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	for i := range c.watches {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("filewatcher: %w", err), c.close())
		}
		c.watches[i] = fd
		if _, err := unix.InotifyAddWatch(fd, c.dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
			return nil, errors.Join(fmt.Errorf("filewatcher: %w", err), c.close())
		}
	}
	return c, nil
}

func (c *ipc) close() error {
	var errs []error
	for _, fd := range c.watches {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}
