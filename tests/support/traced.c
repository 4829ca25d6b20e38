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

static __thread int own;

/* A USDT probe app:mine, as <sys/sdt.h> makes them, whose argument each thread has of its own. */
__attribute__((noinline)) static void mine(void)
{
	own = 41;
	__asm__ volatile("1: nop\n"
			 ".pushsection .note.stapsdt,\"\",\"note\"\n"
			 ".balign 4\n"
			 ".4byte 3f-2f, 5f-4f, 3\n"
			 "2: .asciz \"stapsdt\"\n"
			 "3: .balign 4\n"
			 "4: .8byte 1b, 0, 0\n"
			 ".asciz \"app\", \"mine\", \"-4@%%fs:own@tpoff\"\n"
			 "5: .balign 4\n"
			 ".popsection" ::
				 : "memory");
}

int main(void)
{
	struct pair pair = {20, "twenty"};
	char byte;

	while (read(0, &byte, 1) == 1) {
		handle(2, "A", &pair);
		_ZN3app5greetEi(7);
		mine();
		if (write(1, &byte, 1) != 1)
			return 1;
	}
	return 0;
}
