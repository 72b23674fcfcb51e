/* MAVIS: chains of modules that answer queries about users and hosts; and the parser of the
 * configuration language.
 *
 * A query is a set of attributes (av_ctx). It is sent through a chain of modules (mavis_ctx), each
 * of which answers it, changes it or passes it on. See mavis/module.h for how to write a module.
 *
 * Program and library both allocate with malloc(3), so either may free the other's memory,
 * unless a header says otherwise. Texts are bytes that end with NUL. Functions copy the texts that
 * they take. */
#ifndef MAVIS_MAVIS_H
#define MAVIS_MAVIS_H

#include <mavis/token.h>
#include <misc/cdefs.h>
#include <misc/io_sched.h>
#include <misc/memops.h>
#include <misc/rb.h>
#include <setjmp.h>
#include <sys/select.h>
#include <sys/types.h>

MAVIS_BEGIN_DECLS

#define MAVIS_API_VERSION "6"

/* Results of sending, fetching and cancelling. */
#define MAVIS_FINAL 0          /* the answer is in the attributes */
#define MAVIS_DEFERRED 1       /* it comes later, with a call of the callback; the module owns the attributes */
#define MAVIS_IGNORE 2         /* there will be no answer */
#define MAVIS_TIMEOUT 3        /* a module gave up */
#define MAVIS_FINAL_DEFERRED 4 /* between modules: final, and the scripts have run */
#define MAVIS_DOWN 16          /* between modules: ask the next one */

/* Results of parsing and of initialising. */
#define MAVIS_CONF_OK 0
#define MAVIS_CONF_ERR 1
#define MAVIS_INIT_OK 0
#define MAVIS_INIT_ERR 1

#define BUFSIZE_MAVIS 65535      /* the longest query or answer as text */
#define MAX_INPUT_LINE_LEN 65535 /* the longest token of a configuration, with its NUL */

/* ---- attributes ---- */

#define AV_A_TYPE 0
#define AV_A_MEMBEROF 1
#define AV_A_SSHKEYHASH 2
#define AV_A_TIMESTAMP 3
#define AV_A_USER 4
#define AV_A_DN 5
#define AV_A_RESULT 6
#define AV_A_PATH 7
#define AV_A_PASSWORD 8
#define AV_A_UID 9
#define AV_A_GID 10
#define AV_A_LIMIT 11
#define AV_A_SSHKEY 12
#define AV_A_TRAFFICSHAPING 13
#define AV_A_IPADDR 14
#define AV_A_QUOTA_LIMIT 15
#define AV_A_QUOTA_PATH 16
#define AV_A_COMMENT 17
#define AV_A_SSHKEYID 18
#define AV_A_HOME 19
#define AV_A_ROOT 20
#define AV_A_SERIAL 21
#define AV_A_FTP_ANONYMOUS 22
#define AV_A_EMAIL 23
#define AV_A_GIDS 24
#define AV_A_SERVERIP 25
#define AV_A_ARGS 26
#define AV_A_REALM 27
#define AV_A_RARGS 28
#define AV_A_ANON_INCOMING 29
#define AV_A_VHOST 30
#define AV_A_UMASK 31
#define AV_A_USER_RESPONSE 32
#define AV_A_VERDICT 33
#define AV_A_CLASS 34
#define AV_A_PASSWORD_EXPIRY 35
#define AV_A_DBPASSWORD 36
#define AV_A_IDENTITY_SOURCE 37
#define AV_A_CUSTOM_0 38
#define AV_A_CUSTOM_1 39
#define AV_A_CUSTOM_2 40
#define AV_A_CUSTOM_3 41
#define AV_A_CALLER_CAP 42
#define AV_A_CERTDATA 43
#define AV_A_CERTSUBJ 44
#define AV_A_DBCERTSUBJ 45
#define AV_A_TACCLIENT 46
#define AV_A_TACMEMBER 47
#define AV_A_TACPROFILE 48
#define AV_A_TACTYPE 49
#define AV_A_PASSWORD_NEW 50
#define AV_A_CHALLENGE 51
#define AV_A_PASSWORD_ONESHOT 52
#define AV_A_PASSWORD_MUSTCHANGE 53
#define AV_A_SHELL 54
#define AV_A_CURRENT_MODULE 55
#define AV_A_ARRAYSIZE 56

/* Values of AV_A_TYPE. Types with the prefix are internal, and not for clients. */
#define AV_V_TYPE_FTP "FTP"
#define AV_V_TYPE_TACPLUS "TACPLUS"
#define AV_V_TYPE_PRIVATE_PREFIX "PRIV_"
#define AV_V_TYPE_PRIVATE_PREFIX_LEN 5
#define AV_V_TYPE_LOGSTATS "PRIV_LOGSTATS"

/* Values of AV_A_RESULT: accepted, rejected, error, unknown user. */
#define AV_V_RESULT_OK "ACK"
#define AV_V_RESULT_FAIL "NAK"
#define AV_V_RESULT_ERROR "ERR"
#define AV_V_RESULT_NOTFOUND "NFD"

/* Values of AV_A_TACTYPE. */
#define AV_V_TACTYPE_AUTH "AUTH"
#define AV_V_TACTYPE_INFO "INFO"
#define AV_V_TACTYPE_CHPW "CHPW"
#define AV_V_TACTYPE_CHAL "CHAL"
#define AV_V_TACTYPE_HOST "HOST"
#define AV_V_TACTYPE_DACL "DACL"
#define AV_V_TACTYPE_MSCH "MSCH"
#define AV_V_TACTYPE_CHAP "CHAP"
#define AV_V_TACTYPE_MFA "MFA"

/* Values of boolean attributes. */
#define AV_V_BOOL_TRUE "TRUE"
#define AV_V_BOOL_FALSE "FALSE"

/* The name of an attribute, and its token in scripts (0: none). */
struct av_char {
    char *name;
    enum token token;
};
extern struct av_char av_char[AV_A_ARRAYSIZE];

MAVIS_SIZE(struct av_char, av_char, 16);
MAVIS_OFFSET(struct av_char, av_char, token, 8);

/* A query or its answer. Get values with av_get() and set them with av_set(). The callback is a
 * void (*)(void *app_ctx), called when a deferred answer can be fetched. */
typedef struct av_ctx {
    char *arr[AV_A_ARRAYSIZE];
    void *app_cb;
    void *app_ctx;
} av_ctx;

MAVIS_SIZE(av_ctx, av_ctx, 464);
MAVIS_OFFSET(av_ctx, av_ctx, app_cb, 448);
MAVIS_OFFSET(av_ctx, av_ctx, app_ctx, 456);

/* Makes an empty set with its callback; changes the callback. */
av_ctx *av_new(void *cb, void *ctx);
void av_setcb(av_ctx *a, void *cb, void *ctx);

/* Frees the set and its values; NULL is ignored. */
void av_free(av_ctx *ac);

/* Unsets the attributes of a single login, and keeps those that describe the user. NULL is
 * ignored. */
void av_free_private(av_ctx *ac);

/* The value, valid until that attribute changes; do not free it. NULL if unset or out of range. */
char *av_get(av_ctx *ac, int av_attribute);

/* Sets an attribute to a copy of the value; NULL unsets it; does nothing if out of range. The value
 * may be the attribute's own text. */
void av_set(av_ctx *ac, int av_attribute, char *av_value);
#define av_unset(ac, attribute) av_set((ac), (attribute), NULL)

/* Sets an attribute to a formatted text. */
void av_setf(av_ctx *ac, int av_attribute, char *format, ...) MAVIS_PRINTF(3, 4);

/* Appends a formatted text, after the separator (may be NULL) if the attribute has a value. */
void av_add(av_ctx *ac, int av_attribute, char *separator, char *format, ...) MAVIS_PRINTF(4, 5);

/* Unsets all attributes; NULL is ignored. */
void av_clear(av_ctx *ac);

/* Move all values, copy all values, or copy those that are unset in the target. Callbacks are not
 * transferred. */
void av_move(av_ctx *ac_out, av_ctx *ac_in);
void av_copy(av_ctx *ac_out, av_ctx *ac_in);
void av_merge(av_ctx *ac_out, av_ctx *ac_in);

/* Prints the set to stderr. */
void av_dump(av_ctx *ac);

/* The index of the attribute with this name (in any case) or token text; -1 if there is none. */
int av_attribute_to_i(char *s);

struct sym;

/* The index of the attribute that the current token names, with or without `$`; -1 if none. */
int av_attr_token_to_i(struct sym *sym);

/* The set as text, with a line `INDEX VALUE` for each value, or for those in `set` if that is not
 * NULL. The first function writes the text and returns its length without the NUL, or -1 if it does
 * not fit; the second returns the buffer size needed; the third reads the text back, ignores
 * malformed lines, and always returns 0. */
int av_array_to_char(av_ctx *ac, char *buffer, size_t buflen, fd_set *set);
size_t av_array_to_char_len(av_ctx *ac);
int av_char_to_array(av_ctx *ac, char *buffer, fd_set *set);

/* Sets a serial number, made from the values, unless the set has one. Returns the number; do not
 * free it. */
char *av_addserial(av_ctx *ac);

/* ---- modules ---- */

struct mavis_action;

/* A module's context: the fields that the library uses, followed by those of the module itself. */
typedef struct mavis_ctx mavis_ctx;
struct mavis_ctx {
    void *handle;                                      /* of dlopen */
    int (*append)(mavis_ctx *, void *);                /* appends a module to the chain */
    int (*init)(mavis_ctx *);                          /* after all configuration */
    int (*parse)(mavis_ctx *, struct sym *, char *);   /* parses the block of the module with that identifier */
    int (*send)(mavis_ctx *, av_ctx **);               /* a query */
    int (*recv)(mavis_ctx *, av_ctx **, void *);       /* fetches a deferred answer */
    int (*cancel)(mavis_ctx *, void *);                /* drops a deferred query */
    void *(*drop)(mavis_ctx *);                        /* frees the chain from here down; returns `handle` */
    mavis_ctx *down;                                   /* the next module */
    mavis_ctx *top;                                    /* the first module */
    int last_result;                                   /* of the deferred answer on its way up */
    struct mavis_action *script_in;
    struct mavis_action *script_out;
    struct mavis_action *script_interim;
    struct io_context *io;                             /* NULL: answers must not be deferred */
    char *identity_source_name;                        /* for AV_A_IDENTITY_SOURCE */
    char *identifier;                                  /* unique in the process */
    enum token action_error;                           /* S_continue or S_reject */
    enum token action_notfound;                        /* S_continue or S_reject */
#ifdef MAVIS_CTX_PRIVATE
    MAVIS_CTX_PRIVATE
#endif
};

#define MAVIS_CTX_HEAD_SIZE 144
#ifndef MAVIS_CTX_PRIVATE
MAVIS_SIZE(mavis_ctx, mavis_ctx, MAVIS_CTX_HEAD_SIZE);
#endif
MAVIS_OFFSET(mavis_ctx, mavis_ctx, append, 8);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, init, 16);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, parse, 24);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, send, 32);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, recv, 40);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, cancel, 48);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, drop, 56);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, down, 64);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, top, 72);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, last_result, 80);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, script_in, 88);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, script_out, 96);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, script_interim, 104);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, io, 112);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, identity_source_name, 120);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, identifier, 128);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, action_error, 136);
MAVIS_OFFSET(mavis_ctx, mavis_ctx, action_notfound, 140);

/* Compares the versions that the caller was compiled with to those of the library. 0, or -1 after a
 * warning. */
int mavis_check_version(char *version, char *token_version);

/* Loads a module from a file and appends it to the chain, which is NULL at first. `ioctx` is NULL
 * for a chain that must not defer answers. Returns 0 or -1. */
int mavis_method_add(mavis_ctx **mcx, struct io_context *ioctx, char *path, char *id);

/* Makes the module `id` parse its block. MAVIS_CONF_OK or MAVIS_CONF_ERR. */
int mavis_parse(mavis_ctx *mcx, struct sym *sym, char *id);

/* Initialises a chain; call it once, after its configuration, with MAVIS_API_VERSION and
 * MAVIS_TOKEN_VERSION. Exits with status 64 if `mcx` is NULL. */
int mavis_init(mavis_ctx *mcx, char *version, char *token_version);

/* Sends a query. MAVIS_FINAL and MAVIS_TIMEOUT: the answer is in `**ac`. MAVIS_DEFERRED: `*ac` is
 * now NULL, and the query's callback will be called. MAVIS_IGNORE: there is no answer, and the
 * caller still owns `*ac` unless it is NULL. Give every query its own AV_A_TIMESTAMP. */
int mavis_send(mavis_ctx *mcx, av_ctx **ac);

/* Call this in that callback, with `*ac` NULL, to fetch the answer to the query of `app_ctx`.
 * Results as above; MAVIS_DEFERRED if another module is still working on the query. */
int mavis_recv(mavis_ctx *mcx, av_ctx **ac, void *app_ctx);

/* Drops a deferred query; its callback will not be called. */
int mavis_cancel(mavis_ctx *mcx, void *app_ctx);

/* Frees a chain; NULL is ignored. Returns 0. */
int mavis_drop(mavis_ctx *mcx);

/* The first function sets `fun(text, master_key)` to decrypt texts of type 6; it returns malloc'ed
 * memory, and the key is copied. The second decrypts a text, or returns NULL if no function is
 * set. */
void mavis_set_type6(char *(*fun)(const char *, const char *), char *master_key);
char *mavis_decrypt_type6(char *in);

/* The header of each message over the pipe to a backend of the module external-mt; big-endian. */
#define MAVIS_EXT_MAGIC_V1 0x4d610001
struct mavis_ext_hdr_v1 {
    uint32_t magic;
    uint32_t body_len;
    uint32_t result;
};
MAVIS_SIZE(struct mavis_ext_hdr_v1, mavis_ext_hdr_v1, 12);

/* ---- configuration: tokens ---- */

struct token_chain;

/* The state of a parser. `code` and `buf` are the current token. For sym_init(), zero it and set
 * `filename`, `in`, `tin`, `len` and `tlen`. A copy parses on independently, so use a copy to look
 * ahead. */
struct sym {
    char *filename;
    char buf[MAX_INPUT_LINE_LEN];
    char *start; /* of the current character in the input */
    char *raw;   /* of the current token in the input */
    unsigned int pos;
    unsigned int line : 29; /* counted from 0 */
    unsigned int flag_parse_pcre : 1;       /* `/` starts a regular expression */
    unsigned int flag_prohibit_include : 1; /* `include` is a word */
    unsigned int quoted : 1;                /* the token was in quotes */
    unsigned char noescape : 1;             /* backslash is an ordinary character */
    unsigned char nowarn : 1;               /* no message about unknown escapes */
    char ch[4];
    unsigned char chlen;
    enum token code;
    char *in; /* the whole input */
    int len;
    char *tin; /* the part that is not read yet */
    int tlen;
    jmp_buf env;   /* the jump target of parse_error(), */
    int env_valid; /* if this is not 0 */
    struct token_chain *token_chain;
    struct sym *next; /* the file that includes this one */
};

/* 65840 bytes where a jmp_buf has 200, as on x86-64 Linux. */
MAVIS_OFFSET(struct sym, sym, buf, 8);
MAVIS_OFFSET(struct sym, sym, start, 65544);
MAVIS_OFFSET(struct sym, sym, raw, 65552);
MAVIS_OFFSET(struct sym, sym, pos, 65560);
MAVIS_OFFSET(struct sym, sym, ch, 65569);
MAVIS_OFFSET(struct sym, sym, chlen, 65573);
MAVIS_OFFSET(struct sym, sym, code, 65576);
MAVIS_OFFSET(struct sym, sym, in, 65584);
MAVIS_OFFSET(struct sym, sym, len, 65592);
MAVIS_OFFSET(struct sym, sym, tin, 65600);
MAVIS_OFFSET(struct sym, sym, tlen, 65608);
MAVIS_OFFSET(struct sym, sym, env, 65616);
MAVIS_OFFSET(struct sym, sym, env_valid, 65616 + sizeof(jmp_buf));
MAVIS_OFFSET(struct sym, sym, token_chain, (65616 + sizeof(jmp_buf) + 4 + 7) / 8 * 8);
MAVIS_OFFSET(struct sym, sym, next, (65616 + sizeof(jmp_buf) + 4 + 7) / 8 * 8 + 8);

/* Read the first token; read the next token; look at the next token without taking the current
 * one. */
void sym_init(struct sym *sym);
void sym_get(struct sym *sym);
enum token sym_peek(struct sym *sym);

/* The number of a reserved word; S_string for other words. */
enum token keycode(char *keyword);

/* ---- configuration: helpers. All of them call parse_error() for input that they cannot take. ---- */

/* Takes the current token, which must be this one. */
void parse(struct sym *sym, enum token sc);

/* Takes yes, permit, true (1), no, deny or false (0). */
unsigned int parse_bool(struct sym *sym);

/* Takes permit or deny, and returns it. */
enum token parse_permission(struct sym *sym);

/* Takes any number of commas. -1 if there was one, otherwise 0. */
int parse_comma(struct sym *sym);

/* Takes a number, decimal or hexadecimal with 0x, and a suffix k, m or g for powers of 1024. */
int parse_int(struct sym *sym);
unsigned int parse_uint(struct sym *sym);

/* Takes a number of seconds, or with the suffix s, m, h or d a time in that unit. */
int parse_seconds(struct sym *sym);

/* Take `KEYWORD = VALUE`: a user by number or name (a name also sets the group, if `gid` is not
 * NULL); a group; an octal mask. */
void parse_userid(struct sym *sym, uid_t *uid, gid_t *gid);
void parse_groupid(struct sym *sym, gid_t *gid);
void parse_umask(struct sym *sym, mode_t *m);

/* Takes names of debug bits, each with an optional + or -, and numbers. */
void parse_debug(struct sym *sym, unsigned int *d);

/* The numbers in <syslog.h> for names in any case; 0 for unknown names. */
int get_syslog_level(char *s);
int get_syslog_facility(char *s);

/* Report `file:line: text` and do not return: they longjmp to the outermost file's `env` if its
 * `env_valid` is set, otherwise exit with status 78. The second function reports the tokens that
 * were expected, a list that ends with S_unknown. */
void parse_error(struct sym *sym, char *fmt, ...) MAVIS_PRINTF(2, 3) MAVIS_NORETURN;
void parse_error_expect(struct sym *sym, ...) MAVIS_NORETURN;

/* Reports a problem to stderr or syslog; with priority LOG_DEBUG, only if a bit of `level` is set
 * in common_data.debug. */
void report_cfg_error(int priority, int level, char *fmt, ...) MAVIS_PRINTF(3, 4);

/* Reads a configuration: common directives, and the section `id`. Calls `parsefunction` at the
 * first token inside the section; it must stop at the closing brace. Exits with status 66 or 78 on
 * failure. */
void cfg_read_config(char *url, void (*parsefunction)(struct sym *), char *id);

/* Reads a file, a URL or ipc://KEY/LENGTH into memory; frees that memory. 0, or something else on
 * failure. */
int cfg_open_and_read(char *url, char **buf, int *buflen);
int cfg_close(char *url, char *buf, int buflen);

/* Copies a configuration to shared memory with the key common_data.ipc_key, and sets
 * common_data.ipc_url to its name; removes it again. */
int ipc_create(char *buf, int buflen);
void ipc_delete(void);

/* Parses a directive that all programs share; the current token is its keyword. */
void parse_common(struct sym *sym);

/* Parse `path = DIR` and `module [NAME] = MODULE { ... }`; the current token is the keyword. The
 * second returns 0 or -1. */
void parse_mavispath(struct sym *sym);
int parse_mavismodule(mavis_ctx **mcx, struct io_context *ioctx, struct sym *sym);

/* ---- scripts ---- */

struct mavis_cond;

/* Parses `action error = ...` or `action not-found = ...`. */
void mavis_module_parse_action(mavis_ctx *mcx, struct sym *sym);

/* Parses `script in { ... }` and the like; several scripts of a kind are joined. `mem` may be
 * NULL. */
void mavis_script_parse(mavis_ctx *mcx, mem_t *mem, struct sym *sym);

/* Runs a script. Returns S_continue, S_return or S_skip, or S_unknown if it ends without one of
 * them. */
enum token mavis_script_eval(mavis_ctx *mcx, av_ctx *ac, struct mavis_action *m);

/* Frees a script and sets the pointer to NULL. */
void mavis_script_drop(struct mavis_action **m);

/* A parsed script: statements, */
struct mavis_action {
    enum token code;
    unsigned int line;
    union {
        struct mavis_cond *c;
        int i;
    } a;
    union {
        struct mavis_action *a;
        char *v;
    } b;
    struct mavis_action *c; /* else */
    struct mavis_action *n; /* the next statement */
};

MAVIS_SIZE(struct mavis_action, mavis_action, 40);
MAVIS_OFFSET(struct mavis_action, mavis_action, a, 8);
MAVIS_OFFSET(struct mavis_action, mavis_action, b, 16);
MAVIS_OFFSET(struct mavis_action, mavis_action, c, 24);
MAVIS_OFFSET(struct mavis_action, mavis_action, n, 32);

struct mavis_cond_single {
    enum token token;
    void *lhs; /* index of an attribute */
    char *lhs_txt;
    enum token rhs_token;
    void *rhs; /* a text, the index of an attribute, or a compiled expression */
    char *rhs_txt;
};

struct mavis_cond_multi {
    int n;
    struct mavis_cond *e[8]; /* the array may be longer */
};

/* and conditions: `type` tells which member of the union is valid. */
struct mavis_cond {
    enum token type;
    unsigned int line;
    union {
        struct mavis_cond_single s;
        struct mavis_cond_multi m;
    } u;
};

MAVIS_SIZE(struct mavis_cond, mavis_cond, 80);
MAVIS_OFFSET(struct mavis_cond, mavis_cond, u, 8);
MAVIS_OFFSET(struct mavis_cond_single, mavis_cond_single, lhs, 8);
MAVIS_OFFSET(struct mavis_cond_single, mavis_cond_single, lhs_txt, 16);
MAVIS_OFFSET(struct mavis_cond_single, mavis_cond_single, rhs_token, 24);
MAVIS_OFFSET(struct mavis_cond_single, mavis_cond_single, rhs, 32);
MAVIS_OFFSET(struct mavis_cond_single, mavis_cond_single, rhs_txt, 40);
MAVIS_OFFSET(struct mavis_cond_multi, mavis_cond_multi, e, 8);

/* Makes a statement from the current token, which it takes; makes an empty condition of a type;
 * adds a child to a condition, and returns it, which may have moved; replaces and-or conditions
 * that have one child by that child. */
struct mavis_action *mavis_action_new(struct sym *sym, mem_t *mem);
struct mavis_cond *mavis_cond_new(struct sym *sym, mem_t *mem, enum token type);
struct mavis_cond *mavis_cond_add(struct mavis_cond *a, mem_t *mem, struct mavis_cond *b);
void mavis_cond_optimize(struct mavis_cond **m, mem_t *mem);

/* If the current token is `(`, makes a parser over the same condition with all implied parentheses
 * written out, and returns -1; the second function frees it. Otherwise returns 0. */
int sym_normalize_cond_start(struct sym *sym, mem_t *mem, struct sym **mysym);
void sym_normalize_cond_end(struct sym **mysym, mem_t *mem);

/* ---- times ---- */

/* Sets of numbers: bit n stands for n. Months count from 0. */
struct mavis_tm {
    struct mavis_tm *next;
    char *string; /* the text it was parsed from */
    uint64_t min;
    uint64_t hour;
    uint64_t mday;
    uint64_t mon;
    uint64_t wday;
};

MAVIS_SIZE(struct mavis_tm, mavis_tm, 56);
MAVIS_OFFSET(struct mavis_tm, mavis_tm, min, 16);
MAVIS_OFFSET(struct mavis_tm, mavis_tm, wday, 48);

struct mavis_timespec {
    struct mavis_tm *tm;
    char *string;
    int matched;
    time_t valid_until;
    char name[1]; /* continues past the end of the struct */
};

MAVIS_SIZE(struct mavis_timespec, mavis_timespec, 40);
MAVIS_OFFSET(struct mavis_timespec, mavis_timespec, matched, 16);
MAVIS_OFFSET(struct mavis_timespec, mavis_timespec, valid_until, 24);
MAVIS_OFFSET(struct mavis_timespec, mavis_timespec, name, 32);

/* Makes a table of named time specifications; parses `timespec = NAME { SPEC ... }` into it; finds
 * one by name, or NULL. */
rb_tree_t *init_timespec(void);
void parse_timespec(rb_tree_t *timespectable, struct sym *sym);
struct mavis_timespec *find_timespec(rb_tree_t *timespectable, char *s);

/* Not 0 if io_now matches; `*s` then is the text of the first specification that matches, otherwise
 * NULL. */
int eval_timespec(struct mavis_timespec *ts, char **s);

/* Parses five fields as in crontab(5). 0, or 1 if they cannot be read. */
int parse_cron(struct mavis_tm *tm, char *t);

/* ---- the process ---- */

struct scm_data;
struct scm_data_accept;
struct scm_data_udp;

/* The settings that the library, the program and its modules share. */
struct common_data {
    struct io_context *io;
    char *progname;
    char *progpath;
    char *version;
    int version_only;
    int parse_only;
    unsigned int debug; /* mask, see mavis/debug.h */
    int debug_redirected;
    int syslog_level;
    int syslog_facility;
    unsigned int syslog_dflt : 1;
    unsigned int syslog_filter;
    uint64_t regex_match_case; /* a stack of bits, one for each open brace */
    uint32_t regex_pcre_flags; /* for pcre2_compile(3) */
    int regex_posix_flags;     /* for regcomp(3) */
    char *syslog_ident;
    char *proctitle;
    char *coredumpdir;
    char *gcorepath;
    char *debug_cmd;
    int debugtty;
    int debugstderr;
    pid_t pid;
    int users_min;
    int users_max;
    int users_cur;
    int users_max_total;
    int servers_min;
    int servers_max;
    int servers_cur;
    char *font_black;
    char *font_red;
    char *font_green;
    char *font_yellow;
    char *font_blue;
    char *font_magenta;
    char *font_cyan;
    char *font_white;
    char *font_plain;
    char *font_bold;
    long ipc_key; /* for shmget(2); 0: none */
    char *ipc_url;
    char **argv;
    char **envp;
    char *pidfile;
    int singleprocess;
    char *conffile;
    char *confdir; /* the directory of `conffile` */
    char *id;
    long cleanup_interval;
    int (*scm_send_msg)(int, struct scm_data *, int);
    int (*scm_recv_msg)(int, struct scm_data_accept *, size_t, int *);
    void (*scm_accept)(int, struct scm_data_accept *);
    void (*scm_udpdata)(int, struct scm_data_udp *);
};

extern struct common_data common_data;

MAVIS_SIZE(struct common_data, common_data, 352);
MAVIS_OFFSET(struct common_data, common_data, io, 0);
MAVIS_OFFSET(struct common_data, common_data, progname, 8);
MAVIS_OFFSET(struct common_data, common_data, progpath, 16);
MAVIS_OFFSET(struct common_data, common_data, version, 24);
MAVIS_OFFSET(struct common_data, common_data, version_only, 32);
MAVIS_OFFSET(struct common_data, common_data, parse_only, 36);
MAVIS_OFFSET(struct common_data, common_data, debug, 40);
MAVIS_OFFSET(struct common_data, common_data, debug_redirected, 44);
MAVIS_OFFSET(struct common_data, common_data, syslog_level, 48);
MAVIS_OFFSET(struct common_data, common_data, syslog_facility, 52);
MAVIS_OFFSET(struct common_data, common_data, syslog_filter, 60);
MAVIS_OFFSET(struct common_data, common_data, regex_match_case, 64);
MAVIS_OFFSET(struct common_data, common_data, regex_pcre_flags, 72);
MAVIS_OFFSET(struct common_data, common_data, regex_posix_flags, 76);
MAVIS_OFFSET(struct common_data, common_data, syslog_ident, 80);
MAVIS_OFFSET(struct common_data, common_data, proctitle, 88);
MAVIS_OFFSET(struct common_data, common_data, coredumpdir, 96);
MAVIS_OFFSET(struct common_data, common_data, gcorepath, 104);
MAVIS_OFFSET(struct common_data, common_data, debug_cmd, 112);
MAVIS_OFFSET(struct common_data, common_data, debugtty, 120);
MAVIS_OFFSET(struct common_data, common_data, debugstderr, 124);
MAVIS_OFFSET(struct common_data, common_data, pid, 128);
MAVIS_OFFSET(struct common_data, common_data, users_min, 132);
MAVIS_OFFSET(struct common_data, common_data, users_max, 136);
MAVIS_OFFSET(struct common_data, common_data, users_cur, 140);
MAVIS_OFFSET(struct common_data, common_data, users_max_total, 144);
MAVIS_OFFSET(struct common_data, common_data, servers_min, 148);
MAVIS_OFFSET(struct common_data, common_data, servers_max, 152);
MAVIS_OFFSET(struct common_data, common_data, servers_cur, 156);
MAVIS_OFFSET(struct common_data, common_data, font_black, 160);
MAVIS_OFFSET(struct common_data, common_data, font_red, 168);
MAVIS_OFFSET(struct common_data, common_data, font_green, 176);
MAVIS_OFFSET(struct common_data, common_data, font_yellow, 184);
MAVIS_OFFSET(struct common_data, common_data, font_blue, 192);
MAVIS_OFFSET(struct common_data, common_data, font_magenta, 200);
MAVIS_OFFSET(struct common_data, common_data, font_cyan, 208);
MAVIS_OFFSET(struct common_data, common_data, font_white, 216);
MAVIS_OFFSET(struct common_data, common_data, font_plain, 224);
MAVIS_OFFSET(struct common_data, common_data, font_bold, 232);
MAVIS_OFFSET(struct common_data, common_data, ipc_key, 240);
MAVIS_OFFSET(struct common_data, common_data, ipc_url, 248);
MAVIS_OFFSET(struct common_data, common_data, argv, 256);
MAVIS_OFFSET(struct common_data, common_data, envp, 264);
MAVIS_OFFSET(struct common_data, common_data, pidfile, 272);
MAVIS_OFFSET(struct common_data, common_data, singleprocess, 280);
MAVIS_OFFSET(struct common_data, common_data, conffile, 288);
MAVIS_OFFSET(struct common_data, common_data, confdir, 296);
MAVIS_OFFSET(struct common_data, common_data, id, 304);
MAVIS_OFFSET(struct common_data, common_data, cleanup_interval, 312);
MAVIS_OFFSET(struct common_data, common_data, scm_send_msg, 320);
MAVIS_OFFSET(struct common_data, common_data, scm_recv_msg, 328);
MAVIS_OFFSET(struct common_data, common_data, scm_accept, 336);
MAVIS_OFFSET(struct common_data, common_data, scm_udpdata, 344);

/* Sets common_data to its defaults, and opens the log. */
void init_common_data(void);

/* Prints the usage of the program, and exits with status 64. */
void common_usage(void) MAVIS_NORETURN;

/* Moves the process into a new session, without the terminal, and sends standard output to
 * /dev/null. */
void mavis_detach(void);

/* Makes `in` printable with backslash escapes, as much as fits. `*outlen` is the size of `out` on
 * entry and the length of the result on return. */
char *escape_string(char *in, size_t inlen, char *out, size_t *outlen);

MAVIS_END_DECLS

#endif
