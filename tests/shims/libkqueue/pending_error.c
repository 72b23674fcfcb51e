/*
 * Preloaded below the suites over libkqueue. To fill in fflags, libkqueue
 * asks for SO_ERROR, which takes the error of a refused or reset connection
 * away from the program. Kernels leave it there, so libkqueue is told that
 * there is none.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int
getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	Dl_info caller;

	if (level == SOL_SOCKET && name == SO_ERROR &&
	    dladdr(__builtin_return_address(0), &caller) != 0 &&
	    strstr(caller.dli_fname, "libkqueue") != NULL) {
		memset(value, 0, *length);
		return 0;
	}
	return (int)syscall(SYS_getsockopt, fd, level, name, value, length);
}
