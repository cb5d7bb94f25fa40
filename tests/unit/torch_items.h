/* torch_items.h: the torch.save and DCP functions as a command, for the tests against torch. */
#ifndef TEST_TORCH_ITEMS_H
#define TEST_TORCH_ITEMS_H

/* Runs `argv[1]`, prints JSON on stdout, or one line on stderr and returns 2. */
int torch_items_main(int argc, char **argv);

#endif
