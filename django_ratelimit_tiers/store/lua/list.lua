-- Name the list of a log, from `value_key` and `id`. Gives `list`.
local function hex(character) return string.format('%02x', string.byte(character)) end
local list = value_key .. ':' .. string.gsub(id, '.', hex)
