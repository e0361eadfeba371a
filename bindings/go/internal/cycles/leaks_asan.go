//go:build asan

package main

// extern int __lsan_do_recoverable_leak_check(void);
import "C"

import "errors"

// A Go program does not end by C's exit, where the sanitizer would look.
func checkLeaks() error {
	if C.__lsan_do_recoverable_leak_check() != 0 {
		return errors.New("memory was left behind")
	}
	return nil
}
