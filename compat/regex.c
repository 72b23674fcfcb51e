/* POSIX regular expressions (regex(7)), in C because regex_t differs between systems. */
#include "shims.h"

#include <regex.h>
#include <stdlib.h>

/* The flag that makes an expression ignore case. */
HIDDEN int compat_regex_ignore_case(void) { return REG_ICASE; }

/* Compiles an extended expression, on the heap; NULL on failure, with the reason in `error`. */
HIDDEN void *compat_regex_new(const char *pattern, int flags, char *error, size_t size)
{
	regex_t *regex = calloc(1, sizeof *regex);
	int code = REG_ESPACE;
	if (regex && !(code = regcomp(regex, pattern, flags | REG_EXTENDED | REG_NOSUB | REG_NEWLINE)))
		return regex;
	regerror(code, regex, error, size);
	free(regex);
	return NULL;
}

/* Non-zero if the expression matches somewhere in the text. */
HIDDEN int compat_regex_matches(const void *regex, const char *text)
{
	return !regexec(regex, text, 0, NULL, 0);
}

HIDDEN void compat_regex_free(void *regex)
{
	regfree(regex);
	free(regex);
}
