/* The event loop: descriptors with callbacks, and timers. Everything happens in one thread.
 *
 * A callback is a void (*)(void *ctx, int fd). It may register, close and change what it likes, its own
 * descriptor included. A timer's callback gets its key as `ctx` and -1 as `fd`. Functions are passed as
 * void * here; negative descriptors are ignored by everything that sets something. */
#ifndef MISC_IO_SCHED_H
#define MISC_IO_SCHED_H

#include <misc/cdefs.h>
#include <sys/time.h>
#include <time.h>

MAVIS_BEGIN_DECLS

struct io_context;
struct ssl_st; /* OpenSSL's SSL; its headers are not needed */

/* The time of day, fresh in every callback. It stays 0 in a process that uses no event loop. */
extern struct timeval io_now;

/* A loop. The environment variable IO_POLL_MECHANISM is a mask of what it may use (epoll 4, poll 8,
 * select 16); abort() if nothing is left. */
struct io_context *io_init(void);

/* Ends a loop: `freeproc`, if given, gets every context that is registered. Descriptors stay open. NULL is
 * no loop. Gives NULL. */
struct io_context *io_destroy(struct io_context *io, void (*freeproc)(void *));

/* Runs for ever. */
void io_main(struct io_context *io) MAVIS_NORETURN;

/* One round: waits up to `poll_timeout` milliseconds (negative: without end) and calls at most one
 * callback per descriptor. Gives the number of ready descriptors. */
int io_poll(struct io_context *io, int poll_timeout);

/* The number of descriptors that the process may have; 0 for NULL. */
int io_get_nfds_limit(struct io_context *io);

/* Adds a descriptor with its context, without callbacks and without interest. Again for the same
 * descriptor: starts over. The context must not be NULL if callbacks are to be called. */
void io_register(struct io_context *io, int fd, void *data);

/* Removes a descriptor and gives its context; no event of the current round reaches it any more. */
void *io_unregister(struct io_context *io, int fd);

/* Removes and closes. -1 for a negative descriptor or one that is closed. */
int io_close(struct io_context *io, int fd);

/* Copies context, callbacks and interest of `from` to `to`, which is registered. */
void io_clone(struct io_context *io, int to, int from);

/* Interest in reading (i) and writing (o). */
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

/* No callback; for i and o no interest either. */
void io_clr_cb_i(struct io_context *io, int fd);
void io_clr_cb_o(struct io_context *io, int fd);
void io_clr_cb_e(struct io_context *io, int fd);
void io_clr_cb_h(struct io_context *io, int fd);

/* What is called if there is no callback; counts for descriptors that are registered later. The
 * preset ones log and abort(). */
void io_set_cb_inv_i(struct io_context *io, void *f);
void io_set_cb_inv_o(struct io_context *io, void *f);
void io_set_cb_inv_e(struct io_context *io, void *f);
void io_set_cb_inv_h(struct io_context *io, void *f);

/* 1 if there is no callback, 0 if there is one, -1 for a negative descriptor. */
int io_is_invalid_i(struct io_context *io, int cur);
int io_is_invalid_o(struct io_context *io, int cur);
int io_is_invalid_e(struct io_context *io, int cur);
int io_is_invalid_h(struct io_context *io, int cur);

void *io_get_cb_i(struct io_context *io, int fd);
void *io_get_cb_o(struct io_context *io, int fd);
void *io_get_cb_e(struct io_context *io, int fd);
void *io_get_cb_h(struct io_context *io, int fd);
void *io_get_ctx(struct io_context *io, int fd);

/* Timers. Their key is the pointer `data`; each key has a stack of procedures with their waiting times, of
 * which only the first runs. A timer that is due does not go by itself: its callback renews, pops or
 * deletes it, or else it is called again. */

/* Puts a procedure first, due from now on in the time given; or last. */
void io_sched_add(struct io_context *io, void *data, void *proc, time_t tv_sec, suseconds_t tv_usec);
void io_sched_app(struct io_context *io, void *data, void *proc, time_t tv_sec, suseconds_t tv_usec);

/* Removes the first; gives the procedure that is first now, its time started anew, or NULL. */
void *io_sched_pop(struct io_context *io, void *data);

/* Removes all. */
void io_sched_drop(struct io_context *io, void *data);

/* Removes `proc`: the first if it is that one, else all later ones. -1 if something was removed, else
 * 0. */
int io_sched_del(struct io_context *io, void *data, void *proc);

/* Starts the time of the first anew, if it is `proc` or `proc` is NULL. 0, or -1 if there is none. */
int io_sched_renew_proc(struct io_context *io, void *data, void *proc);
#define io_sched_renew(io, data) io_sched_renew_proc((io), (data), NULL)

/* The first procedure and when it is due; NULL if there is none. */
void *io_sched_peek(struct io_context *io, void *data);
struct timeval *io_sched_peek_time(struct io_context *io, void *data);

/* Calls what is due. Milliseconds until the next, for io_poll, or -1 if there is none. */
int io_sched_exec(struct io_context *io);

/* TLS over a registered descriptor. While OpenSSL waits for the other direction, `cb` takes the place of
 * both callbacks. Bytes; 0 with errno EAGAIN if it is too early; -1 with errno EIO on errors and at the end.
 * The _ex forms say more. */
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
