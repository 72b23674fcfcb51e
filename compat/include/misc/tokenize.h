/* Splits a line into words. */
#ifndef MISC_TOKENIZE_H
#define MISC_TOKENIZE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Splits `string` at blanks, in place. Text in double quotes is one word, and a backslash outside
 * of quotes makes the next character an ordinary one. The words go to `vector`, followed by NULL;
 * its length `v_len` must be two more than the number of words. Returns that number, or -1 if there
 * are too many words. */
int tokenize(char *string, char **vector, int v_len);

MAVIS_END_DECLS

#endif
