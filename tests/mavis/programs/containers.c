/* Red-black trees. */
#include "check.h"
#include <misc/rb.h>

struct item {
    int key;
    int freed;
};

static int last_new;
static int compare(const void *a, const void *b)
{
    /* The new or searched item is the first argument. */
    last_new = ((const struct item *)a)->key;
    return last_new < ((const struct item *)b)->key ? -1 : last_new > ((const struct item *)b)->key;
}

static void free_item(const void *payload)
{
    ((struct item *)(uintptr_t)payload)->freed++;
}

#define SIZE 500
static struct item items[SIZE];
static rb_node_t *nodes[SIZE];

/* A pseudo-random order of all keys: 7 and SIZE have no common divisor. */
static int at(int i) { return i * 7 % SIZE; }

static void check_order(rb_tree_t *tree, int expected)
{
    int seen = 0, last = -1;
    for (rb_node_t *node = RB_first(tree); node; node = RB_next(node)) {
        struct item *item = RB_payload(node, struct item *);
        CHECK(item->key > last);
        CHECK(nodes[item->key] == node); /* nodes do not move */
        last = item->key;
        seen++;
    }
    CHECK_INT(seen, expected);
    CHECK_INT(RB_count(tree), expected);
    CHECK_INT(tree->count, expected);
    seen = 0;
    for (rb_node_t *node = RB_last(tree); node; node = RB_previous(node))
        seen++;
    CHECK_INT(seen, expected);
}

static void helpers(void)
{
    rb_tree_t *tree = RB_tree_new(compare, free_item);
    struct item key = { 0, 0 };
    CHECK(RB_empty(tree) && RB_empty(NULL) == -1 && !RB_count(NULL) && !RB_first(NULL) && !RB_first(tree) && !RB_last(tree));
    for (int i = 0; i < SIZE; i++) {
        int n = at(i);
        items[n].key = n;
        items[n].freed = 0;
        nodes[n] = RB_insert(tree, &items[n]);
        CHECK(nodes[n] != NULL);
        CHECK_INT(last_new, i ? n : last_new);
        CHECK(!RB_insert(tree, &items[n]));
    }
    CHECK_INT(RB_empty(tree), 0);
    check_order(tree, SIZE);
    for (int i = 0; i < SIZE; i++) {
        key.key = i;
        CHECK(RB_search(tree, &key) == nodes[i]);
        CHECK_INT(last_new, i);
        CHECK(RB_lookup(tree, &key) == &items[i]);
    }
    key.key = SIZE;
    CHECK(!RB_search(tree, &key) && !RB_lookup(tree, &key));

    /* Removes every third item, in pseudo-random order. */
    int left = SIZE;
    for (int i = 0; i < SIZE; i++) {
        int n = at(i);
        if (n % 3 == 0) {
            RB_delete(tree, nodes[n]);
            CHECK_INT(items[n].freed, 1);
            left--;
        } else if (n % 3 == 1 && n < 30) {
            CHECK(RB_delete_but_keep_data(tree, nodes[n]) == &items[n]);
            CHECK_INT(items[n].freed, 0);
            left--;
        }
    }
    check_order(tree, left);
    key.key = 31;
    RB_search_and_delete(tree, &key);
    CHECK_INT(items[31].freed, 1);
    RB_search_and_delete(tree, &key);
    check_order(tree, --left);

    /* Deleting during a walk: the next node is fetched before. */
    for (rb_node_t *node = RB_first(tree), *next; node; node = next) {
        next = RB_next(node);
        if (RB_payload(node, struct item *)->key % 2)
            RB_delete(tree, node), left--;
    }
    check_order(tree, left);
    RB_tree_delete(tree);
    for (int i = 30; i < SIZE; i++)
        CHECK_INT(items[i].freed, 1);
    RB_tree_delete(NULL);
}

static int visited;
static void visit(rbnode_type *node, void *arg)
{
    CHECK(arg == &visited);
    rbnode_free(node);
    visited++;
}

static void exports(void)
{
    rbtree_type tree;
    struct item three[] = { { 10, 0 }, { 20, 0 }, { 30, 0 } }, key = { 0, 0 };
    rbnode_type *node[3], *found = NULL;
    rbtree_init(&tree, compare, NULL);
    CHECK_INT(tree.count, 0);
    CHECK(tree.cmp == compare && !tree.free);
    CHECK(!rbtree_first(&tree) && !rbtree_last(&tree));
    key.key = 5;
    CHECK(!rbtree_search(&tree, &key));
    CHECK(!rbtree_delete(&tree, &key));
    CHECK_INT(rbtree_find_less_equal(&tree, &key, &found), 0);
    CHECK(!found);
    for (int i = 0; i < 3; i++) {
        node[i] = rbnode_alloc();
        node[i]->key = &three[i];
        CHECK(rbtree_insert(&tree, node[i]) == node[i]);
    }
    rbnode_type *extra = rbnode_alloc();
    extra->key = &three[1];
    CHECK(!rbtree_insert(&tree, extra));
    rbnode_free(extra);
    CHECK_INT(tree.count, 3);
    CHECK(rbtree_first(&tree) == node[0] && rbtree_last(&tree) == node[2]);
    CHECK(rbtree_next(node[0]) == node[1] && !rbtree_next(node[2]));
    CHECK(rbtree_previous(node[1]) == node[0] && !rbtree_previous(node[0]));
    static const struct {
        int key, exact, index;
    } cases[] = { { 9, 0, -1 }, { 10, 1, 0 }, { 11, 0, 0 }, { 20, 1, 1 }, { 29, 0, 1 }, { 30, 1, 2 }, { 1000, 0, 2 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        key.key = cases[i].key;
        CHECK_INT(rbtree_find_less_equal(&tree, &key, &found), cases[i].exact);
        CHECK(found == (cases[i].index < 0 ? NULL : node[cases[i].index]));
    }
    key.key = 20;
    CHECK(rbtree_delete(&tree, &key) == node[1]);
    CHECK(node[1]->key == &three[1]);
    CHECK(!rbtree_search(&tree, &key));
    CHECK_INT(tree.count, 2);
    CHECK(rbtree_delete_node(&tree, node[0]) == node[0]);
    CHECK(rbtree_first(&tree) == node[2]);
    CHECK(rbtree_insert(&tree, node[0]) == node[0]);
    CHECK(rbtree_insert(&tree, node[1]) == node[1]);
    traverse_postorder(&tree, visit, &visited);
    CHECK_INT(visited, 3);

    /* A tree that frees payloads, and one that does not. */
    rbtree_type *with = rbtree_create(compare, free_item), *without = rbtree_create(compare, NULL);
    rbnode_type *one = rbnode_alloc(), *two = rbnode_alloc();
    one->key = two->key = &three[0];
    rbtree_freefunc(one, without);
    CHECK_INT(three[0].freed, 0);
    rbtree_freefunc(two, with);
    CHECK_INT(three[0].freed, 1);
    free(with);
    free(without);

    CHECK(rbtree_null_node.parent == &rbtree_null_node && rbtree_null_node.left == &rbtree_null_node &&
          rbtree_null_node.right == &rbtree_null_node);
    CHECK(!rbtree_null_node.key && !rbtree_null_node.color);
}

int main(void)
{
    init_common_data();
    helpers();
    exports();
    return check_result();
}
