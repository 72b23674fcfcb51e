/* Red-black trees. Nodes come from the library's pool. A payload stays in its node, even when a
 * neighbour is deleted. See misc/rb.h for handier functions.
 *
 * The compare function always gets the searched or new key as its first argument. */
#ifndef MISC_RBTREE_H
#define MISC_RBTREE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

#define RBTREE_BLACK 0
#define RBTREE_RED 1

typedef struct rbnode_t rbnode_type;
struct rbnode_t {
    rbnode_type *parent;
    rbnode_type *left;
    rbnode_type *right;
    const void *key; /* the payload, which belongs to the caller */
    uint8_t color;
};

MAVIS_SIZE(rbnode_type, rbnode, 40);
MAVIS_OFFSET(rbnode_type, rbnode, left, 8);
MAVIS_OFFSET(rbnode_type, rbnode, right, 16);
MAVIS_OFFSET(rbnode_type, rbnode, key, 24);
MAVIS_OFFSET(rbnode_type, rbnode, color, 32);

typedef struct rbtree_t {
    rbnode_type *root;
    size_t count; /* number of nodes */
    int (*cmp)(const void *, const void *);
    void (*free)(const void *); /* frees a payload; may be NULL */
} rbtree_type;

MAVIS_SIZE(rbtree_type, rbtree, 32);
MAVIS_OFFSET(rbtree_type, rbtree, count, 8);
MAVIS_OFFSET(rbtree_type, rbtree, cmp, 16);
MAVIS_OFFSET(rbtree_type, rbtree, free, 24);

/* Not used by this library, where missing children are NULL. Never change it. */
extern rbnode_type rbtree_null_node;

/* An empty tree in malloc'ed memory, and one in the caller's memory. `freef` may be NULL. */
rbtree_type *rbtree_create(int (*cmpf)(const void *, const void *), void (*freef)(const void *));
void rbtree_init(rbtree_type *rbtree, int (*cmpf)(const void *, const void *), void (*freef)(const void *));

/* Allocates and frees a node. Do not free(3) nodes, which are not malloc'ed one by one. */
rbnode_type *rbnode_alloc(void);
void rbnode_free(rbnode_type *rbnode);

/* Inserts a node whose key is set. Does nothing and returns NULL if the tree has an equal key. */
rbnode_type *rbtree_insert(rbtree_type *rbtree, rbnode_type *data);

/* The node with this key, or NULL. */
rbnode_type *rbtree_search(rbtree_type *rbtree, const void *key);

/* 1 and the node with this key; otherwise 0 and the node with the largest smaller key, or NULL. */
int rbtree_find_less_equal(rbtree_type *rbtree, const void *key, rbnode_type **result);

/* First, last, next and previous node; NULL if there is none. */
rbnode_type *rbtree_first(rbtree_type *rbtree);
rbnode_type *rbtree_last(rbtree_type *rbtree);
rbnode_type *rbtree_next(rbnode_type *node);
rbnode_type *rbtree_previous(rbnode_type *node);

/* Take a node out of the tree, by key (NULL if there is none) or by pointer, and return it. The
 * caller frees the node and its payload. */
rbnode_type *rbtree_delete(rbtree_type *rbtree, const void *key);
rbnode_type *rbtree_delete_node(rbtree_type *rbtree, rbnode_type *to_delete);

/* Calls `func(node, arg)` for every node, children before their parent; `func` may free the node. */
void traverse_postorder(rbtree_type *tree, void (*func)(rbnode_type *, void *), void *arg);

MAVIS_END_DECLS

#endif
