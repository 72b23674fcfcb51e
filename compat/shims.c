/* Functions of libmavis that only C can define: those with variable arguments, and those that may
   leave by longjmp, which must not skip a Rust frame. Each calls the Rust half, and continues,
   jumps or ends the process only after that has returned.

   The names are the exported ones with `compat_` in front. The exported functions are jumps to
   these (ffi/trampolines.rs). */
#include "shims.h"

#include <errno.h>
#include <mavis/token.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EX_CONFIG 78
#define RUST (tcprelay_interface())

/* A formatted message, or just the format if there is no memory for more. */
struct text {
	const char *text;
	char *memory;
};

static struct text format_text(const char *format, va_list arguments)
{
	struct text result = {format ? format : "", NULL};
	if (format && vasprintf(&result.memory, format, arguments) >= 0)
		result.text = result.memory;
	else
		result.memory = NULL;
	return result;
}

#define FORMAT(name, last)                                                                         \
	va_list name##_arguments;                                                                  \
	va_start(name##_arguments, last);                                                          \
	struct text name = format_text(last, name##_arguments);                                    \
	va_end(name##_arguments)

/* --- logging ------------------------------------------------------------------------------- */

HIDDEN void compat_logmsg(char *format, ...)
{
	int saved = errno;
	FORMAT(message, format);
	RUST->log_message(message.text);
	free(message.memory);
	errno = saved;
}

HIDDEN void compat_logerr(char *format, ...)
{
	int saved = errno;
	FORMAT(message, format);
	char *whole = NULL;
	if (asprintf(&whole, "%s: %s", message.text, strerror(saved)) < 0)
		whole = NULL;
	RUST->log_message(whole ? whole : message.text);
	free(whole);
	free(message.memory);
	errno = saved;
}

HIDDEN void compat_debug(unsigned long level, char *format, ...)
{
	int saved = errno;
	FORMAT(message, format);
	RUST->debug_message(level, message.text);
	free(message.memory);
	errno = saved;
}

HIDDEN void compat_report_cfg_error(int priority, int level, char *format, ...)
{
	FORMAT(message, format);
	RUST->configuration_message(priority, level, message.text);
	free(message.memory);
}

HIDDEN void compat_setproctitle(const char *format, ...)
{
	FORMAT(title, format);
	RUST->set_title(title.text);
	free(title.memory);
}

/* --- attributes ---------------------------------------------------------------------------- */

void av_set(void *ac, int attribute, char *value);

HIDDEN void compat_av_setf(void *ac, int attribute, char *format, ...)
{
	FORMAT(value, format);
	av_set(ac, attribute, (char *)value.text);
	free(value.memory);
}

HIDDEN void compat_av_add(void *ac, int attribute, char *separator, char *format, ...)
{
	FORMAT(value, format);
	RUST->av_add(ac, attribute, separator, value.text);
	free(value.memory);
}

/* --- errors of the configuration ----------------------------------------------------------- */

static _Noreturn void fail(struct sym *sym)
{
	void *target = RUST->failure(sym);
	if (target)
		longjmp(*(jmp_buf *)target, 1);
	exit(EX_CONFIG);
}

#define UNLESS(sym, failed)                                                                        \
	do {                                                                                       \
		if (failed)                                                                        \
			fail(sym);                                                                 \
	} while (0)

HIDDEN _Noreturn void compat_parse_error(struct sym *sym, char *format, ...)
{
	FORMAT(message, format);
	RUST->keep_error(sym, message.text);
	free(message.memory);
	fail(sym);
}

HIDDEN _Noreturn void compat_parse_error_expect(struct sym *sym, ...)
{
	int codes[64];
	size_t count = 0;
	va_list arguments;
	va_start(arguments, sym);
	for (int code; (code = va_arg(arguments, int)) && count < sizeof codes / sizeof *codes;)
		codes[count++] = code;
	va_end(arguments);
	RUST->describe_expected(sym, codes, count);
	fail(sym);
}

/* --- the lexer, and functions that read values --------------------------------------------- */

HIDDEN void compat_sym_get(struct sym *sym) { UNLESS(sym, RUST->sym_get(sym)); }
HIDDEN void compat_sym_init(struct sym *sym) { UNLESS(sym, RUST->sym_init(sym)); }
HIDDEN void compat_parse(struct sym *sym, int code) { UNLESS(sym, RUST->parse(sym, code)); }
HIDDEN void compat_parse_common(struct sym *sym) { UNLESS(sym, RUST->parse_common(sym)); }
HIDDEN void compat_parse_mavispath(struct sym *sym) { UNLESS(sym, RUST->parse_mavispath(sym)); }
HIDDEN void compat_spawnd_parse_decls(struct sym *sym) { UNLESS(sym, RUST->spawnd_parse_decls(sym)); }

#define VALUE(type, name)                                                                          \
	HIDDEN type compat_##name(struct sym *sym)                                                 \
	{                                                                                          \
		type value = 0;                                                                    \
		UNLESS(sym, RUST->name(sym, &value));                                              \
		return value;                                                                      \
	}
VALUE(int, sym_peek)
VALUE(unsigned, parse_bool)
VALUE(int, parse_comma)
VALUE(int, parse_int)
VALUE(unsigned, parse_uint)
VALUE(int, parse_seconds)
VALUE(int, parse_permission)

HIDDEN void compat_parse_userid(struct sym *sym, uid_t *uid, gid_t *gid)
{
	UNLESS(sym, RUST->parse_userid(sym, uid, gid));
}

HIDDEN void compat_parse_groupid(struct sym *sym, gid_t *gid) { UNLESS(sym, RUST->parse_groupid(sym, gid)); }
HIDDEN void compat_parse_umask(struct sym *sym, mode_t *mode) { UNLESS(sym, RUST->parse_umask(sym, mode)); }
HIDDEN void compat_parse_debug(struct sym *sym, unsigned *mask) { UNLESS(sym, RUST->parse_debug(sym, mask)); }

HIDDEN void compat_parse_timespec(void *table, struct sym *sym)
{
	UNLESS(sym, RUST->parse_timespec(table, sym));
}

HIDDEN void compat_add_token_to_alias(struct token_list **list, struct sym *sym)
{
	UNLESS(sym, RUST->add_token_to_alias(list, sym));
}

/* --- modules and scripts ------------------------------------------------------------------- */

/* The start of a module's context, up to its `parse` function, which is called here. */
struct mavis_ctx {
	void *handle, *append, *init;
	int (*parse)(struct mavis_ctx *, struct sym *, char *id);
};

HIDDEN int compat_mavis_parse(struct mavis_ctx *head, struct sym *sym, char *id)
{
	enum { MAVIS_CONF_ERR = 1 };
	return head ? head->parse(head, sym, id) : MAVIS_CONF_ERR;
}

HIDDEN int compat_parse_mavismodule(struct mavis_ctx **head, struct io_context *io, struct sym *sym)
{
	char id[24];
	int loaded = RUST->load_module(head, io, sym, id, sizeof id);
	if (loaded < 0)
		return -1;
	UNLESS(sym, loaded);
	if (compat_mavis_parse(*head, sym, id))
		return -1;
	compat_parse(sym, S_closebra);
	return 0;
}

HIDDEN void compat_mavis_script_parse(struct mavis_ctx *module, void *pool, struct sym *sym)
{
	UNLESS(sym, RUST->mavis_script_parse(module, pool, sym));
}

HIDDEN void compat_mavis_module_parse_action(struct mavis_ctx *module, struct sym *sym)
{
	UNLESS(sym, RUST->parse_action(module, sym));
}

HIDDEN struct mavis_cond *compat_mavis_cond_new(struct sym *sym, void *pool, int type)
{
	struct mavis_cond *condition = NULL;
	UNLESS(sym, RUST->mavis_cond_new(sym, pool, type, &condition));
	return condition;
}

HIDDEN struct mavis_cond *compat_mavis_cond_parse(struct sym *sym, void *pool)
{
	struct mavis_cond *condition = NULL;
	UNLESS(sym, RUST->mavis_cond_parse(sym, pool, &condition));
	return condition;
}

HIDDEN struct mavis_action *compat_mavis_action_new(struct sym *sym, void *pool)
{
	struct mavis_action *action = NULL;
	UNLESS(sym, RUST->mavis_action_new(sym, pool, &action));
	return action;
}

HIDDEN int compat_sym_normalize_cond_start(struct sym *sym, void *pool, struct sym **normalized)
{
	int result = 0;
	UNLESS(sym, RUST->normalize_cond(sym, pool, normalized, &result));
	return result;
}

HIDDEN void compat_cfg_read_config(char *url, void (*parse_section)(struct sym *), char *id)
{
	/* Ends the process if there is no such section. */
	struct sym *sym = RUST->open_configuration(url, id);
	if (parse_section)
		parse_section(sym);
	RUST->close_configuration(sym);
}
