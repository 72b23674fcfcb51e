/* Memory that cannot run out: these functions log and end the process with status 71 instead of
 * giving NULL. And pools, whose memory goes all at once.
 *
 * All of it is memory of malloc(3), so free(3) takes what the functions without a pool give. */
#ifndef MISC_MEMOPS_H
#define MISC_MEMOPS_H

#include <misc/cdefs.h>
#include <stdlib.h>

MAVIS_BEGIN_DECLS

/* calloc, realloc and strdup; `file` and `line` go to the log if there is no memory. Use the macros. */
void *XXcalloc(size_t nmemb, size_t size, char *file, int line);
void *XXrealloc(void *ptr, size_t size, char *file, int line);
char *XXstrdup(const char *s, char *file, int line);

#define Xcalloc(number, size) XXcalloc((number), (size), (char *)__FILE__, __LINE__)
#define Xrealloc(pointer, size) XXrealloc((pointer), (size), (char *)__FILE__, __LINE__)
#define Xstrdup(text) XXstrdup((text), (char *)__FILE__, __LINE__)

/* Xfree(&p): frees what p points to, which may be NULL, and NULLs p. */
#define Xfree(address)            \
    do {                          \
        free((void *)*(address)); \
        *(address) = NULL;        \
    } while (0)

enum mem_type {
    M_STD = 0,  /* no pool: plain malloc */
    M_LIST = 1, /* remembers each piece */
    M_POOL = 2  /* few large pieces */
};

typedef struct mem mem_t;

/* A pool. NULL for M_STD; every function below takes NULL for plain malloc. */
mem_t *mem_create(enum mem_type type);

/* Frees everything that came from the pool, then runs what mem_add_free noted, then frees the pool.
 * Gives NULL. */
void *mem_destroy(mem_t *m);

/* Zeroed memory. */
void *mem_alloc(mem_t *m, size_t size);

/* Copies: of a text, of at most `len` bytes as a text, of `len` bytes with a NUL added. NULL gives
 * NULL. */
char *mem_strdup(mem_t *m, char *s);
char *mem_strndup(mem_t *m, unsigned char *s, size_t len);
void *mem_copy(mem_t *m, void *p, size_t len);

/* Makes a piece of the pool larger or smaller. */
void *mem_realloc(mem_t *m, void *p, size_t len);

/* Frees one piece. `ptr` is the ADDRESS of the pointer, which is NULLed. Gives NULL. */
void *mem_free(mem_t *m, void *ptr);

/* Hands malloc'ed memory to the pool; gives `p`. */
void *mem_attach(mem_t *m, void *p);

/* Takes a piece out of the pool; the caller frees it. NULL if it was not there. */
void *mem_detach(mem_t *m, void *p);

/* Has `freefun`, a void (*)(void *), called with `p` when the pool is destroyed. */
void mem_add_free(mem_t *m, void *freefun, void *p);

MAVIS_END_DECLS

#endif
