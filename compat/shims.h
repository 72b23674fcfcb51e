/* The interface between the C half and the Rust half of libmavis. Private to the library. */
#ifndef TCPRELAY_SHIMS_H
#define TCPRELAY_SHIMS_H

#include <stdarg.h>
#include <stddef.h>
#include <sys/types.h>

#define HIDDEN __attribute__((visibility("hidden")))

struct sym;
struct mavis_ctx;
struct io_context;
struct mavis_cond;
struct mavis_action;
struct token_list;

/* Filled in by the Rust half; the order is that of `Interface` in ffi/interface.rs. Functions that
   read configuration return 0, or 1 after keeping an error, which `failure` then handles. */
struct tcprelay_interface {
	int (*main)(int kind, int argc, char **argv);

	void (*log_message)(const char *text);
	void (*debug_message)(unsigned long level, const char *text);
	void (*configuration_message)(int priority, int level, const char *text);
	void (*set_title)(const char *text);
	void (*av_add)(void *ac, int attribute, const char *separator, const char *text);

	int (*describe_expected)(struct sym *, const int *codes, size_t count);
	void (*keep_error)(struct sym *, const char *text);
	/* Reports the error that was kept; returns the jmp_buf to jump to, or NULL to end the
	 * process. */
	void *(*failure)(struct sym *);

	int (*sym_get)(struct sym *);
	int (*sym_init)(struct sym *);
	int (*sym_peek)(struct sym *, int *code);
	int (*parse)(struct sym *, int code);
	int (*parse_bool)(struct sym *, unsigned *value);
	int (*parse_comma)(struct sym *, int *value);
	int (*parse_int)(struct sym *, int *value);
	int (*parse_uint)(struct sym *, unsigned *value);
	int (*parse_seconds)(struct sym *, int *value);
	int (*parse_permission)(struct sym *, int *code);
	int (*parse_userid)(struct sym *, uid_t *uid, gid_t *gid);
	int (*parse_groupid)(struct sym *, gid_t *gid);
	int (*parse_umask)(struct sym *, mode_t *mode);
	int (*parse_debug)(struct sym *, unsigned *mask);
	int (*parse_common)(struct sym *);
	int (*parse_mavispath)(struct sym *);
	/* Loads the module that the configuration names, and appends it: 0 loaded, 1 error kept, -1
	 * not found. */
	int (*load_module)(struct mavis_ctx **head, struct io_context *, struct sym *, char *id, size_t size);
	int (*mavis_script_parse)(struct mavis_ctx *, void *pool, struct sym *);
	int (*parse_action)(struct mavis_ctx *, struct sym *);
	int (*mavis_cond_new)(struct sym *, void *pool, int type, struct mavis_cond **);
	int (*mavis_cond_parse)(struct sym *, void *pool, struct mavis_cond **);
	int (*mavis_action_new)(struct sym *, void *pool, struct mavis_action **);
	int (*normalize_cond)(struct sym *, void *pool, struct sym **, int *result);
	int (*parse_timespec)(void *table, struct sym *);
	int (*add_token_to_alias)(struct token_list **, struct sym *);
	int (*spawnd_parse_decls)(struct sym *);
	/* cfg_read_config in two halves: between them, C calls a function of the program. */
	struct sym *(*open_configuration)(const char *url, const char *id);
	void (*close_configuration)(struct sym *);
};

const struct tcprelay_interface *tcprelay_interface(void);

#endif
