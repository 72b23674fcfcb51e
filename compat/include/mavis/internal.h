/* Functions that the library exports although no other program is known to use them. */
#ifndef MAVIS_INTERNAL_H
#define MAVIS_INTERNAL_H

#include <mavis/mavis.h>
#include <signal.h>

MAVIS_BEGIN_DECLS

struct token_list;

/* Defines an alias without tokens, and returns a handle for add_token_to_alias(), which adds the
 * current token without taking it. */
struct token_list **add_alias(char *name);
void add_token_to_alias(struct token_list **p, struct sym *sym);

/* Parses a condition of a script. */
struct mavis_cond *mavis_cond_parse(struct sym *sym, mem_t *mem);

/* The handler that setup_sig_segv() installs, and the one it replaced. */
void catchsegv(int sig, siginfo_t *sip, void *uap);
extern void (*coredump_handler)(int, siginfo_t *, void *);

/* The main() of a broker; `id` names its section. Returns only in single-process mode. */
int spawnd_main(int argc, char **argv, char **envp, char *id);

/* The entry for this project's own programs. Not for others: it changes with every release. */
const struct tcprelay_interface *tcprelay_interface(void);

MAVIS_END_DECLS

#endif
