/* The header stands alone, may come twice, and is strict C99. */
#include "layerline.h"
#include "layerline.h"

int main(void)
{
    layerline_event event = { 0, 0, 0, 0, 0, 0, 0 };
    layerline_options *options = layerline_options_new();
    layerline_status status = layerline_options_set_prefetch(options, true);
    layerline_options_free(options);
    return status == LAYERLINE_OK && event.kind != LAYERLINE_EVENT_DONE && layerline_version_number() > 0 ? 0 : 1;
}
