//go:build !linux

package layerline_test

import "syscall"

// Elsewhere they are not found by name.
func libraryThreads() []int { return nil }

func signalThread(int, syscall.Signal) error { return nil }
