/* Reads the config of a run, and notes members that ckpt-run does not know. */
#include "run_settings.h"

#include <string.h>

#include "formats/notes.h"
#include "libckpt/config_names.h"
#include "libckpt/json.h"
#include "libckpt/text.h"
#include "reference-runner/config_members.h"

enum { CONFIG_FILE_BYTES = 1 << 24, UNKNOWN_TOLD = 20 };

static void take_eos(const json_value *eos, run_settings *out)
{
    for (const json_value *v = json_is_array(eos) ? json_first(eos) : eos;
         v != NULL && out->eos_count < RUN_EOS_MAX; v = json_is_array(eos) ? json_next(v) : NULL) {
        uint64_t id;

        if (json_u64(v, &id))
            out->eos[out->eos_count++] = (uint32_t)id;
    }
}

static ckpt_code note_unknown(const json_value *config, file_list *notes, ckpt_error *err)
{
    const int is_inference = config_is_inference(config);
    const json_value *v = NULL;
    size_t count = 0;
    ckpt_code code;

    while ((v = config_members_unknown(config, is_inference, v)) != NULL)
        if (count++ < UNKNOWN_TOLD &&
            (code = note_add(notes, err, "config.json has '%s', which is not known here: if it "
                             "changes the forward pass, these logits are not the model's",
                             json_key(v))) != CKPT_OK)
            return code;
    if (count <= UNKNOWN_TOLD)
        return CKPT_OK;
    return note_add(notes, err, "config.json has %s not known here",
                    text_count(count - UNKNOWN_TOLD, "more member that is",
                               "more members that are").text);
}

ckpt_code run_settings_read(const char *file, const char *path, const ckpt_checkpoint *checkpoint,
                            run_settings *out, ckpt_error *err)
{
    const json_value *root;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (file != NULL) {
        if ((code = json_parse_named(file, CONFIG_FILE_BYTES, &out->file, err)) != CKPT_OK)
            return code;
        root = json_root(out->file);
    } else if (checkpoint->config != NULL) {
        root = json_root(checkpoint->config);
    } else {
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' has no config.json: use --config FILE",
                         path);
    }
    take_eos(json_member(root, "eos_token_id"), out);
    code = run_config_read(root, file != NULL ? file : "config.json", &out->config, err);
    return code == CKPT_OK ? note_unknown(root, &out->notes, err) : code;
}

void run_settings_release(run_settings *settings)
{
    file_list_free(&settings->notes);
    json_free(settings->file);
}

int run_settings_is_eos(const run_settings *settings, uint32_t id)
{
    for (size_t i = 0; i < settings->eos_count; i++)
        if (settings->eos[i] == id)
            return 1;
    return 0;
}
