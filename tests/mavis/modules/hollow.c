/* No module at all: it lacks the entry. */
int hollow_nothing(void);

int hollow_nothing(void)
{
    return 0;
}
