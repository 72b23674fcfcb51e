/* Not a module: it lacks the entry function. */
int hollow_nothing(void);

int hollow_nothing(void)
{
    return 0;
}
