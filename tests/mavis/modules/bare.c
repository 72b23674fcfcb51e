/* The simplest possible module, without hooks: it only runs scripts. */
#define MAVIS_NAME "bare"
#include <mavis/module.h>
