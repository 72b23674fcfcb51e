/* What ps(1) shows for a worker: how many clients it has, and whether it takes more. */
#ifndef MAVIS_SET_PROCTITLE_H
#define MAVIS_SET_PROCTITLE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

enum proctitle_status {
    ACCEPT = 0,      /* takes so many more */
    ACCEPT_YES = 1,  /* takes more, as the broker sees fit */
    ACCEPT_NO = 2,   /* takes none now */
    ACCEPT_NEVER = 3 /* ends with the last one */
};

/* Shows the numbers of common_data. */
void set_proctitle(int status);

MAVIS_END_DECLS

#endif
