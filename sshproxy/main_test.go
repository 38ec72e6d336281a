package sshproxy

import (
	"testing"

	"ssm-ssh/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
