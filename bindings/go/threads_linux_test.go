package layerline_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// libraryThreads is the threads that the library has started in this process.
func libraryThreads() []int {
	var threads []int
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		name, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/comm")
		if number, err := strconv.Atoi(task.Name()); err == nil && strings.HasPrefix(string(name), "layerline") {
			threads = append(threads, number)
		}
	}
	return threads
}

func signalThread(thread int, signal syscall.Signal) error {
	return syscall.Tgkill(os.Getpid(), thread, signal)
}
