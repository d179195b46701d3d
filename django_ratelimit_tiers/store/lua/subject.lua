-- Begin with the next subject. Put in where its `value` is known. Its charges are gone through in
-- their order. `head` is the new value up to `unread`, without its first 4 bytes, which say when
-- the key expires (`kept_until`). `latest` is when the last of the changed records expires, 0 while
-- none has changed, and `has_grown` whether one was added.
if not value or #value < FIRST or (#value - FIRST + 1) % RECORD_SIZE ~= 0 then value = EMPTY end
local kept_until, head, unread, latest, has_grown = unpack_from('<I4', value), '', FIRST, 0, false
