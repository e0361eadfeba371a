/* The first process of an emulated machine: tells the size of its pages, runs /program with the arguments that the kernel was
 * given, tells how that ended, and turns the machine off. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void mounted(const char *folder, const char *kind)
{
    mkdir(folder, 0755);
    if (mount(kind, folder, kind, 0, "") != 0)
        perror(folder);
}

int main(int argc, char **argv)
{
    (void)argc;
    mounted("/proc", "proc");
    mounted("/sys", "sysfs");
    mounted("/dev", "devtmpfs");
    mounted("/tmp", "tmpfs");
    printf("pages of %ld bytes\n", sysconf(_SC_PAGESIZE));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        argv[0] = "/program";
        execv(argv[0], argv);
        perror("/program");
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status))
        printf("ended with %d\n", WEXITSTATUS(status));
    else
        printf("ended by signal %d\n", WTERMSIG(status));
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
