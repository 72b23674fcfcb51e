/* The internals of the broker, for programs that build a broker of their own. */
#ifndef MAVIS_SPAWND_HEADERS_H
#define MAVIS_SPAWND_HEADERS_H

#include <mavis/mavis.h>
#include <misc/net.h>

MAVIS_BEGIN_DECLS

struct track_entry;
struct spawnd_server;
struct spawnd_context;

/* The stickiness cache: which worker a client had last. */
struct track_data {
    rb_tree_t *db;
    struct track_entry *lru_first;
    struct track_entry *lru_last;
    time_t tracking_period; /* seconds; 0: off */
    unsigned int tracking_size;
    unsigned int hash;
};

MAVIS_SIZE(struct track_data, track_data, 40);
MAVIS_OFFSET(struct track_data, track_data, tracking_period, 24);
MAVIS_OFFSET(struct track_data, track_data, tracking_size, 32);
MAVIS_OFFSET(struct track_data, track_data, hash, 36);

/* The broker's settings and state. */
struct spawnd_data {
    char *conffile;
    char *child_id;
    char *child_config;
    char *child_path;
    uid_t uid;
    gid_t gid;
    char *cwd;
    int inetd;
    int abandon;
    int background;
    int background_lock;
    char *pidfile;
    int pidfile_lock;
    int listeners_max;
    int listeners_inactive;
    enum token overload;
    char *overload_hint;
    struct spawnd_context **listener_arr;
    struct spawnd_server **server_arr;
    int retry_delay;
    int bind_failures;
    int keepcnt;
    int keepidle;
    int keepintvl;
    int scm_bufsize;
    struct track_data track_data;
};

extern struct spawnd_data spawnd_data;

MAVIS_SIZE(struct spawnd_data, spawnd_data, 176);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, conffile, 0);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, child_id, 8);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, child_config, 16);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, child_path, 24);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, uid, 32);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, gid, 36);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, cwd, 40);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, inetd, 48);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, abandon, 52);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, background, 56);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, background_lock, 60);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, pidfile, 64);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, pidfile_lock, 72);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, listeners_max, 76);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, listeners_inactive, 80);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, overload, 84);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, overload_hint, 88);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, listener_arr, 96);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, server_arr, 104);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, retry_delay, 112);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, bind_failures, 116);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, keepcnt, 120);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, keepidle, 124);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, keepintvl, 128);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, scm_bufsize, 132);
MAVIS_OFFSET(struct spawnd_data, spawnd_data, track_data, 136);

/* A listener, or a worker with its channel. */
struct spawnd_context {
    struct io_context *io;
    int fn; /* the descriptor */
    unsigned int is_listener : 1;
    unsigned int dying : 1;
    unsigned int logged_retry : 1;
    unsigned int sd_flags;
    unsigned int tls_versions;
    unsigned int dtls_versions;
    int socktype;
    int protocol;
    uint16_t port;
    int listen_backlog;
    int overload_backlog;
    struct timeval tv;
    int use;
    pid_t pid;
    char tag[17]; /* the realm */
    size_t tag_len;
    char *vrf;
    size_t vrf_len;
    uid_t uid;
    gid_t gid;
    mode_t mode;
    int retry_delay;
    int keepcnt;
    int keepidle;
    int keepintvl;
    int dscp;
    int aaa_protocol;
    sockaddr_union sa;
    struct track_data track_data;
};

MAVIS_SIZE(struct spawnd_context, spawnd_context, 312);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, fn, 8);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, sd_flags, 16);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, tls_versions, 20);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, dtls_versions, 24);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, socktype, 28);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, protocol, 32);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, port, 36);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, listen_backlog, 40);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, overload_backlog, 44);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, tv, 48);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, use, 64);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, pid, 68);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, tag, 72);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, tag_len, 96);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, vrf, 104);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, vrf_len, 112);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, uid, 120);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, gid, 124);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, mode, 128);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, retry_delay, 132);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, keepcnt, 136);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, keepidle, 140);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, keepintvl, 144);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, dscp, 148);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, aaa_protocol, 152);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, sa, 156);
MAVIS_OFFSET(struct spawnd_context, spawnd_context, track_data, 272);

/* An empty context: no descriptor, and the system's keep-alive values. */
struct spawnd_context *spawnd_new_context(struct io_context *io);

/* Appends an address to listen on, with the settings of `data`, a context. Returns 0. A callback
 * for su_addrinfo(). */
int spawnd_note_listener(sockaddr_union *sa, void *data);

/* Binds and listens; tries again later if that is configured. */
void spawnd_bind_listener(struct spawnd_context *ctx, int cur);

/* Callback of a listener: accepts a client or receives a datagram, and gives it to a worker. */
void spawnd_accepted(struct spawnd_context *ctx, int cur);

/* Not 0 if the access list lets this address connect. */
int spawnd_acl_check(sockaddr_union *su);

/* Parses the broker's section, up to its closing brace. */
void spawnd_parse_decls(struct sym *sym);

/* Starts a worker process, and returns the broker's end of its channel and its process id. The
 * second function also adds it to the workers, and watches it. */
int spawnd_spawn_child(pid_t *pidp);
void spawnd_add_child(void);

/* Closes and frees a context. */
void spawnd_cleanup_internal(struct spawnd_context *ctx, int fd);

/* The worker at index `old` has moved to `new_`, or has gone if `new_` is negative. */
void spawnd_adjust_tracking(int old, int new_);

/* Installs the broker's signal handlers; acts upon the signals that they have caught. */
void spawnd_setup_signals(void);
void spawnd_process_signals(void);

/* The path of the running executable, malloc'ed; or a copy of `dflt` if that has a slash or the
 * path is unknown. */
void get_exec_path(char **path, char *dflt);

MAVIS_END_DECLS

#endif
