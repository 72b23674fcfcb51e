/* Handier functions over misc/rbtree.h: they manage the nodes, so the caller handles only payloads.
 * They are defined in this header and compiled into every module; only the functions of rbtree.h
 * are called. */
#ifndef MISC_RB_H
#define MISC_RB_H

#include <misc/rbtree.h>
#include <stdlib.h>

MAVIS_BEGIN_DECLS

typedef rbtree_type rb_tree_t;
typedef rbnode_type rb_node_t;

/* Frees a node, and its payload if the tree, `data`, has a function for that. For
 * traverse_postorder. */
void rbtree_freefunc(rbnode_type *rbnode, void *data);

/* An empty tree; `free_payload` may be NULL. */
MAVIS_INLINE rb_tree_t *RB_tree_new(int (*compare)(const void *, const void *),
                                    void (*free_payload)(const void *))
{
    return rbtree_create(compare, free_payload);
}

/* Frees the tree, its nodes and payloads. NULL is ignored. */
MAVIS_INLINE void RB_tree_delete(rb_tree_t *tree)
{
    if (tree) {
        traverse_postorder(tree, rbtree_freefunc, tree);
        free(tree);
    }
}

/* The payload of a node; NULL for no node. */
MAVIS_INLINE void *RB_payload_get(rb_node_t *node)
{
    return node ? (void *)(uintptr_t)node->key : NULL;
}
#define RB_payload(node, type) ((type)RB_payload_get(node))

/* Inserts a payload. NULL if there is an equal one; the payload then still belongs to the
 * caller. */
MAVIS_INLINE rb_node_t *RB_insert(rb_tree_t *tree, const void *payload)
{
    rb_node_t *node = rbnode_alloc();
    node->key = payload;
    if (!rbtree_insert(tree, node)) {
        rbnode_free(node);
        return NULL;
    }
    return node;
}

/* The node with a payload that equals `key`, or NULL. */
MAVIS_INLINE rb_node_t *RB_search(rb_tree_t *tree, const void *key)
{
    return rbtree_search(tree, key);
}

/* The payload that equals `key`, or NULL. */
MAVIS_INLINE void *RB_lookup(rb_tree_t *tree, const void *key)
{
    return RB_payload_get(rbtree_search(tree, key));
}

/* Deletes a node with its payload. */
MAVIS_INLINE void RB_delete(rb_tree_t *tree, rb_node_t *node)
{
    node = rbtree_delete_node(tree, node);
    if (tree->free)
        tree->free(node->key);
    rbnode_free(node);
}

/* Deletes a node and returns its payload. */
MAVIS_INLINE void *RB_delete_but_keep_data(rb_tree_t *tree, rb_node_t *node)
{
    void *payload;
    node = rbtree_delete_node(tree, node);
    payload = RB_payload_get(node);
    rbnode_free(node);
    return payload;
}

/* Deletes the node whose payload equals `key`, and the payload, if there is one. */
MAVIS_INLINE void RB_search_and_delete(rb_tree_t *tree, const void *key)
{
    rb_node_t *node = rbtree_delete(tree, key);
    if (node) {
        if (tree->free)
            tree->free(node->key);
        rbnode_free(node);
    }
}

/* First, last, next and previous node; NULL if there is none, or no tree. Get the neighbour before
 * you delete a node. */
MAVIS_INLINE rb_node_t *RB_first(rb_tree_t *tree) { return tree ? rbtree_first(tree) : NULL; }
MAVIS_INLINE rb_node_t *RB_last(rb_tree_t *tree) { return tree ? rbtree_last(tree) : NULL; }
MAVIS_INLINE rb_node_t *RB_next(rb_node_t *node) { return node ? rbtree_next(node) : NULL; }
MAVIS_INLINE rb_node_t *RB_previous(rb_node_t *node) { return node ? rbtree_previous(node) : NULL; }

/* Number of payloads; 0 for no tree. */
MAVIS_INLINE size_t RB_count(rb_tree_t *tree) { return tree ? tree->count : 0; }

/* Not 0 if the tree is empty; -1 for no tree. */
MAVIS_INLINE int RB_empty(rb_tree_t *tree) { return tree ? tree->count == 0 : -1; }

MAVIS_END_DECLS

#endif
