/* Allocation that cannot fail: without memory, these functions log and exit with status 71 instead
 * of returning NULL. And pools, whose memory is freed all at once.
 *
 * All memory comes from malloc(3), so memory outside of a pool may be freed with free(3). */
#ifndef MISC_MEMOPS_H
#define MISC_MEMOPS_H

#include <misc/cdefs.h>
#include <stdlib.h>

MAVIS_BEGIN_DECLS

/* calloc, realloc and strdup; `file` and `line` are logged if there is no memory. Use the
 * macros. */
void *XXcalloc(size_t nmemb, size_t size, char *file, int line);
void *XXrealloc(void *ptr, size_t size, char *file, int line);
char *XXstrdup(const char *s, char *file, int line);

#define Xcalloc(number, size) XXcalloc((number), (size), (char *)__FILE__, __LINE__)
#define Xrealloc(pointer, size) XXrealloc((pointer), (size), (char *)__FILE__, __LINE__)
#define Xstrdup(text) XXstrdup((text), (char *)__FILE__, __LINE__)

/* Xfree(&p): frees what p points to, which may be NULL, and sets p to NULL. */
#define Xfree(address)            \
    do {                          \
        free((void *)*(address)); \
        *(address) = NULL;        \
    } while (0)

enum mem_type {
    M_STD = 0,  /* no pool: plain malloc */
    M_LIST = 1, /* a pool */
    M_POOL = 2  /* the same in this library */
};

typedef struct mem mem_t;

/* A pool. NULL for M_STD; every function below takes NULL for plain malloc. */
mem_t *mem_create(enum mem_type type);

/* Frees all memory of the pool, then makes the calls of mem_add_free, then frees the pool. Returns
 * NULL. */
void *mem_destroy(mem_t *m);

/* Zeroed memory. */
void *mem_alloc(mem_t *m, size_t size);

/* Copies of a string, and of `len` bytes with a NUL added. mem_strdup returns NULL for NULL. */
char *mem_strdup(mem_t *m, char *s);
char *mem_strndup(mem_t *m, unsigned char *s, size_t len);
void *mem_copy(mem_t *m, void *p, size_t len);

/* realloc(3) for a block of the pool. For NULL, allocates zeroed memory. */
void *mem_realloc(mem_t *m, void *p, size_t len);

/* Frees one block. `ptr` is the ADDRESS of the pointer, which is set to NULL. Returns NULL. */
void *mem_free(mem_t *m, void *ptr);

/* Adds malloc'ed memory to the pool; returns `p`. */
void *mem_attach(mem_t *m, void *p);

/* Takes a block out of the pool; the caller frees it. NULL if it was not in the pool. */
void *mem_detach(mem_t *m, void *p);

/* Calls `freefun`, a void (*)(void *), with `p` when the pool is destroyed. */
void mem_add_free(mem_t *m, void *freefun, void *p);

MAVIS_END_DECLS

#endif
