/* A module without hooks, as plain as can be: it carries scripts. */
#define MAVIS_NAME "bare"
#include <mavis/module.h>
