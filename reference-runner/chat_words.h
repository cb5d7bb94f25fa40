/* chat_words.h: the fixed strings of a prompt. The model was trained with exactly these bytes.
 * The UTF-8 bytes of U+FF5C and U+2581 are written as escapes. */
#ifndef RUN_CHAT_WORDS_H
#define RUN_CHAT_WORDS_H

#define CHAT_BAR "\xEF\xBD\x9C"
#define CHAT_BOS "<" CHAT_BAR "begin\xE2\x96\x81of\xE2\x96\x81sentence" CHAT_BAR ">"
#define CHAT_EOS "<" CHAT_BAR "end\xE2\x96\x81of\xE2\x96\x81sentence" CHAT_BAR ">"
#define CHAT_USER "<" CHAT_BAR "User" CHAT_BAR ">"
#define CHAT_ASSISTANT "<" CHAT_BAR "Assistant" CHAT_BAR ">"
#define CHAT_REMINDER "<" CHAT_BAR "latest_reminder" CHAT_BAR ">"
#define CHAT_THINK "<think>"
#define CHAT_THINK_END "</think>"
#define CHAT_DSML CHAT_BAR "DSML" CHAT_BAR
#define CHAT_CALLS "<" CHAT_DSML "tool_calls"
#define CHAT_CALLS_END "</" CHAT_DSML "tool_calls>"
#define CHAT_INVOKE "<" CHAT_DSML "invoke"
#define CHAT_INVOKE_END "</" CHAT_DSML "invoke"
#define CHAT_PARAMETER "<" CHAT_DSML "parameter"
#define CHAT_PARAMETER_END "/" CHAT_DSML "parameter"

#endif
