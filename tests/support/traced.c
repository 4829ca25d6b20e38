/* SPDX-License-Identifier: Apache-2.0
 * A program to be traced by its symbols and its debugging information: for each byte that it reads
 * it calls its functions once, and writes the byte back. */
#include <unistd.h>

struct pair {
	long number;
	const char *name;
};

__attribute__((noinline)) long handle(int times, const char *text, struct pair *pair)
{
	long product = times * pair->number;
	return product + text[0]; /* AT_LINE */
}

/* app::greet(int) as a C++ compiler names it */
__attribute__((noinline)) int _ZN3app5greetEi(int number)
{
	return number + 1;
}

int main(void)
{
	struct pair pair = {20, "twenty"};
	char byte;

	while (read(0, &byte, 1) == 1) {
		handle(2, "A", &pair);
		_ZN3app5greetEi(7);
		if (write(1, &byte, 1) != 1)
			return 1;
	}
	return 0;
}
