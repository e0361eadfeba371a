/* System calls that fail on command. The program that links faults.c defines them itself, so that the shared library
 * calls these instead of the C library's. */
#ifndef LAYERLINE_CTESTS_FAULTS_H
#define LAYERLINE_CTESTS_FAULTS_H

enum fault_call {
    FAULT_OPEN, FAULT_STAT, FAULT_READ, FAULT_WRITE, FAULT_SYNC, FAULT_RENAME, FAULT_MMAP, FAULT_MADVISE, FAULT_MUNMAP,
    FAULT_THREAD, FAULT_SOCKET, FAULT_KINDS
};

extern const char *const fault_names[FAULT_KINDS];

/* From now on the `nth` call of this kind, counted from 1, fails with the error number `code`; with `again`, every
 * `nth` one does. */
void fault_arm(enum fault_call call, unsigned nth, int code, int again);

/* No more failures. How many calls of the kind there were since it was armed. */
unsigned fault_disarm(void);

#endif
