/* The installed header, which pkg-config finds: nothing of the C interface is copied here. */
#include <layerline.h>
