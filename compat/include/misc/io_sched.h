/* The event loop: descriptors with callbacks, and timers. Use it from one thread only.
 *
 * A callback is a void (*)(void *ctx, int fd). It may register, close and change any descriptor,
 * its own included. A timer's callback gets its key as `ctx` and -1 as `fd`. Functions are passed
 * as void * here. All functions that set something ignore negative descriptors. */
#ifndef MISC_IO_SCHED_H
#define MISC_IO_SCHED_H

#include <misc/cdefs.h>
#include <sys/time.h>
#include <time.h>

MAVIS_BEGIN_DECLS

struct io_context;
struct ssl_st; /* OpenSSL's SSL; its headers are not needed */

/* The time of day, set in every turn of the loop. It stays 0 in a process without an event loop. */
extern struct timeval io_now;

/* A loop. The environment variable IO_POLL_MECHANISM is a decimal mask of the event mechanisms that
 * it may use (kqueue 1, /dev/poll 2, epoll 4, poll 8, select 16, event ports 32, as far as the
 * system has them). Calls abort() if none can be used. */
struct io_context *io_init(void);

/* Ends a loop, and calls `freeproc`, if not NULL, with every registered context. Descriptors stay
 * open. NULL is ignored. Returns NULL. */
struct io_context *io_destroy(struct io_context *io, void (*freeproc)(void *));

/* Runs the loop for ever. */
void io_main(struct io_context *io) MAVIS_NORETURN;

/* One turn: waits up to `poll_timeout` milliseconds (negative: for ever) and calls at most one
 * callback per descriptor. Returns the number of ready descriptors. */
int io_poll(struct io_context *io, int poll_timeout);

/* The number of descriptors that the process may have; 0 for NULL. */
int io_get_nfds_limit(struct io_context *io);

/* Registers a descriptor with its context, without callbacks and interest. Registering it again
 * resets it. Callbacks are called only if the context is not NULL. */
void io_register(struct io_context *io, int fd, void *data);

/* Unregisters a descriptor and returns its context. Events of the current turn no longer reach
 * it. */
void *io_unregister(struct io_context *io, int fd);

/* Unregisters and closes a descriptor. -1 if it is negative or already closed. */
int io_close(struct io_context *io, int fd);

/* Copies context, callbacks and interest of `from` to `to`. Both must be registered. */
void io_clone(struct io_context *io, int to, int from);

/* Interest in reading (i) and writing (o): set, clear and get. */
void io_set_i(struct io_context *io, int fd);
void io_set_o(struct io_context *io, int fd);
void io_clr_i(struct io_context *io, int fd);
void io_clr_o(struct io_context *io, int fd);
int io_want_read(struct io_context *io, int fd);
int io_want_write(struct io_context *io, int fd);

/* Callbacks: readable (i), writable (o), error (e), hang-up (h). */
void io_set_cb_i(struct io_context *io, int fd, void *f);
void io_set_cb_o(struct io_context *io, int fd, void *f);
void io_set_cb_e(struct io_context *io, int fd, void *f);
void io_set_cb_h(struct io_context *io, int fd, void *f);

/* Remove a callback, so that the fallback is called; for i and o, also clear the interest. */
void io_clr_cb_i(struct io_context *io, int fd);
void io_clr_cb_o(struct io_context *io, int fd);
void io_clr_cb_e(struct io_context *io, int fd);
void io_clr_cb_h(struct io_context *io, int fd);

/* Set the fallback, which is called if a descriptor has no callback, for descriptors registered
 * later. The initial fallbacks log and abort(). */
void io_set_cb_inv_i(struct io_context *io, void *f);
void io_set_cb_inv_o(struct io_context *io, void *f);
void io_set_cb_inv_e(struct io_context *io, void *f);
void io_set_cb_inv_h(struct io_context *io, void *f);

/* 1 if the descriptor has no callback, 0 if it has one, -1 if it is negative. */
int io_is_invalid_i(struct io_context *io, int cur);
int io_is_invalid_o(struct io_context *io, int cur);
int io_is_invalid_e(struct io_context *io, int cur);
int io_is_invalid_h(struct io_context *io, int cur);

void *io_get_cb_i(struct io_context *io, int fd);
void *io_get_cb_o(struct io_context *io, int fd);
void *io_get_cb_e(struct io_context *io, int fd);
void *io_get_cb_h(struct io_context *io, int fd);
void *io_get_ctx(struct io_context *io, int fd);

/* Timers. Their key is the pointer `data`. Each key has a stack of procedures with their intervals,
 * of which only the first is running. A timer that has fired stays on the stack: its callback must
 * renew, pop or delete it, or it is called again. */

/* Adds a procedure as the first of its key, due after the given time from now; or as the last. */
void io_sched_add(struct io_context *io, void *data, void *proc, time_t tv_sec, suseconds_t tv_usec);
void io_sched_app(struct io_context *io, void *data, void *proc, time_t tv_sec, suseconds_t tv_usec);

/* Removes the first procedure of a key. Returns the next one, whose interval starts now, or
 * NULL. */
void *io_sched_pop(struct io_context *io, void *data);

/* Removes all procedures of a key. */
void io_sched_drop(struct io_context *io, void *data);

/* Removes `proc`: the first procedure if that is `proc`, otherwise every later one that is. -1 if
 * something was removed, otherwise 0. */
int io_sched_del(struct io_context *io, void *data, void *proc);

/* Restarts the interval of the first procedure, if it is `proc` or `proc` is NULL. 0, or -1 if
 * nothing was restarted. */
int io_sched_renew_proc(struct io_context *io, void *data, void *proc);
#define io_sched_renew(io, data) io_sched_renew_proc((io), (data), NULL)

/* The first procedure, and when it is due; NULL if there is none. */
void *io_sched_peek(struct io_context *io, void *data);
struct timeval *io_sched_peek_time(struct io_context *io, void *data);

/* Calls the timers that are due. Returns the milliseconds until the next one, for io_poll, or -1 if
 * there is none. */
int io_sched_exec(struct io_context *io);

/* TLS over a registered descriptor. While a read waits for the socket to become writable, or a
 * write for it to become readable, `cb` replaces both callbacks of the descriptor. Return the
 * number of bytes; 0 with errno EAGAIN if the operation must wait; -1 with errno EIO on errors and
 * at the end. The _ex functions report an io_status instead. io_SSL_shutdown returns 1 if both ends
 * have sent close_notify; otherwise -1 with errno EAGAIN if `cb` will be called, EINPROGRESS if
 * only the other end's close_notify is missing, or EIO. */
enum io_status {
    io_status_ok = 0,
    io_status_retry = 1,
    io_status_error = 2,
    io_status_close = 3
};

ssize_t io_SSL_read(struct ssl_st *ssl, void *buf, size_t num, struct io_context *io, int fd, void *cb);
ssize_t io_SSL_write(struct ssl_st *ssl, void *buf, size_t num, struct io_context *io, int fd, void *cb);
ssize_t io_SSL_read_ex(struct ssl_st *ssl, void *buf, size_t num, struct io_context *io, int fd, void *cb,
                       enum io_status *status);
ssize_t io_SSL_write_ex(struct ssl_st *ssl, void *buf, size_t num, struct io_context *io, int fd, void *cb,
                        enum io_status *status);
int io_SSL_shutdown(struct ssl_st *ssl, struct io_context *io, int fd, void *cb);

MAVIS_END_DECLS

#endif
