/* CRC-32 with the polynomial 0x04C11DB7, most significant bit first, as in POSIX cksum(1). */
#ifndef MISC_CRC32_H
#define MISC_CRC32_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Continues `crc` (0 at the start) over `len` bytes. Nothing is complemented. */
uint32_t crc32_update(uint32_t crc, unsigned char *cp, off_t len);

/* Finishes a checksum over `len` bytes in all: appends the length and complements. The result is
 * the number that cksum(1) prints. */
uint32_t crc32_final(uint32_t crc, off_t len);

MAVIS_END_DECLS

#endif
