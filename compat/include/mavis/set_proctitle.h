/* The title of a worker in ps(1): how many clients it has, and whether it takes more. */
#ifndef MAVIS_SET_PROCTITLE_H
#define MAVIS_SET_PROCTITLE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

enum proctitle_status {
    ACCEPT = 0,      /* accepts, up to users_max_total */
    ACCEPT_YES = 1,  /* accepts what the broker sends */
    ACCEPT_NO = 2,   /* does not accept now */
    ACCEPT_NEVER = 3 /* never accepts again, and exits when idle */
};

/* Shows a status (enum proctitle_status), with the numbers of common_data. */
void set_proctitle(int status);

MAVIS_END_DECLS

#endif
