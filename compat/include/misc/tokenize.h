/* Words of a command line. */
#ifndef MISC_TOKENIZE_H
#define MISC_TOKENIZE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Splits `string` at blanks, in place; words in double quotes stay together, and a backslash outside
 * of quotes makes the next character an ordinary one. The words go to `vector`, which has room for
 * `v_len`. Their number, or -1 if there are too many. */
int tokenize(char *string, char **vector, int v_len);

MAVIS_END_DECLS

#endif
