/* For walking over tokens. */
#ifndef TOKENS_H
#define TOKENS_H

#include "check.h"

/* Checks the next token and goes on. */
MAVIS_INLINE void check_token(const char *file, int line, struct sym *sym, enum token code, const char *text)
{
    check_int(file, line, "token", sym->code, code);
    check_text(file, line, "token's text", sym->buf, text);
    sym_get(sym);
}
#define TOKEN(sym, code, text) check_token(__FILE__, __LINE__, (sym), (code), (text))

#endif
