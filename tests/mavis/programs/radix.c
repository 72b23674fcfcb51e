/* Prefix trees. */
#include "check.h"
#include <misc/net.h>
#include <misc/radix.h>

static int freed;
static void free_payload(void *payload, void *data)
{
    CHECK(data == &freed);
    if (payload) /* the original calls it for inner nodes as well */
        freed++;
}

static int compare(void *a, void *b) { return strcmp((char *)a, (char *)b); }

static char walked[1024];
static void walk(struct in6_addr *a, int length, void *payload, void *data)
{
    sockaddr_union su;
    char text[64];
    CHECK(data == walked);
    su_htop(&su, a, AF_INET6);
    sprintf(walked + strlen(walked), "%s/%d=%s ", su_ntoa(&su, text, sizeof text), length, (char *)payload);
}

int main(void)
{
    struct radixtree *tree = radix_new(free_payload, NULL);
    void *all[129];
    init_common_data();
    CHECK(!radix_lookup_str(tree, T("10.0.0.1"), NULL));
    CHECK_INT(radix_add_str(tree, T("10.0.0.0/8"), T("eight")), 0);
    CHECK_INT(radix_add_str(tree, T("10.1.0.0/16"), T("sixteen")), 0);
    CHECK_INT(radix_add_str(tree, T("10.1.2.3"), T("host")), 0);
    CHECK_INT(radix_add_str(tree, T("2001:db8::/32"), T("six")), 0);
    char *other = strdup("other");
    CHECK_INT(radix_add_str(tree, T("10.1.0.0/16"), other), 1);
    CHECK_INT(radix_add_str(tree, T("nonsense"), other), -1);

    CHECK_TEXT((char *)radix_lookup_str(tree, T("10.200.0.1"), NULL), "eight");
    CHECK_TEXT((char *)radix_lookup_str(tree, T("10.1.0.1"), NULL), "sixteen");
    CHECK_TEXT((char *)radix_lookup_str(tree, T("10.1.2.3"), NULL), "host");
    CHECK_TEXT((char *)radix_lookup_str(tree, T("10.1.2.2"), NULL), "sixteen");
    CHECK_TEXT((char *)radix_lookup_str(tree, T("2001:db8:1::1"), NULL), "six");
    CHECK(!radix_lookup_str(tree, T("11.0.0.1"), NULL));
    CHECK(!radix_lookup_str(tree, T("2001:db9::"), NULL));
    memset(all, 0, sizeof all);
    CHECK_TEXT((char *)radix_lookup_str(tree, T("10.1.2.3"), all), "host");
    CHECK_TEXT((char *)all[0], "eight");
    CHECK_TEXT((char *)all[1], "sixteen");
    CHECK_TEXT((char *)all[2], "host");
    CHECK(!all[3]);

    struct in6_addr a, masked;
    int length;
    CHECK_INT(v6_ptoh(&a, &length, T("10.9.8.7/16")), 0);
    CHECK_INT(v6_ptoh(&masked, NULL, T("10.9.0.0")), 0);
    /* Another host in the same network: the address is masked in place. */
    v6_ptoh(&a, NULL, T("10.9.8.7"));
    CHECK(!radix_add(tree, &a, 112, other));
    CHECK(!memcmp(&a, &masked, sizeof a));
    CHECK(!radix_add(tree, &a, 112, other));
    CHECK_TEXT((char *)radix_add(tree, &a, 112, T("third")), "other");
    CHECK_TEXT((char *)radix_lookup(tree, &a, NULL), "other");

    radix_walk(tree, walk, walked);
    CHECK_HAS(walked, "/104=eight ");
    CHECK_HAS(walked, "/112=sixteen ");
    CHECK_HAS(walked, "/128=host ");
    CHECK_HAS(walked, "2001:db8::/32=six ");
    CHECK_HAS(walked, "/112=other ");
    int walks = 0;
    for (char *p = walked; *p; p++)
        walks += *p == ' ';
    CHECK_INT(walks, 5);
    /* The caller can define what counts as equal. */
    char first[] = "same", second[] = "same", third[] = "different";
    struct radixtree *equals = radix_new(NULL, compare);
    CHECK_INT(radix_add_str(equals, T("::/0"), first), 0);
    v6_ptoh(&a, NULL, T("::"));
    CHECK(!radix_add(equals, &a, 0, second));
    CHECK(radix_add(equals, &a, 0, third) != NULL);
    CHECK_TEXT((char *)radix_lookup_str(equals, T("1.2.3.4"), NULL), "same");
    radix_drop(&tree, &freed);
    CHECK(!tree);
    CHECK_INT(freed, 5);
    if (!original) { /* the original uses the memory of the first tree once more */
        radix_drop(&equals, NULL);
        CHECK(!equals);
        tree = radix_new(NULL, NULL);
        CHECK_INT(radix_add_str(tree, T("10.0.0.0/8"), T("again")), 0);
        CHECK_TEXT((char *)radix_lookup_str(tree, T("10.1.1.1"), NULL), "again");
        radix_drop(&tree, NULL);
    }
    free(other);
    return check_result();
}
