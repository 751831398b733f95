-- Owners of a content, from whom those are chosen that an answer names.
-- KEYS: info, rate, owners, names. ARGV: how many of the fastest, how many others, a random
-- number, how many levels of speed are looked at.
-- Returns nothing if it is not known; else its length, the name that most use, references,
-- scores and entries.
local length = redis.call('HGET', KEYS[1], 'length')
if not length then
    return false
end
local name = redis.call('ZREVRANGE', KEYS[4], 0, 0)[1] or ''
local left, others, turn = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local total = redis.call('ZCARD', KEYS[2])
local refs, seen = {}, {}
local function take(list)
    for _, ref in ipairs(list) do
        if not seen[ref] then
            seen[ref] = true
            refs[#refs + 1] = ref
        end
    end
end
local at = 0
for level = 1, tonumber(ARGV[4]) do
    if at >= total or left <= 0 then
        break
    end
    local first = redis.call('ZREVRANGE', KEYS[2], at, at, 'WITHSCORES')
    local floor = math.floor(tonumber(first[2]))
    local count = redis.call('ZCOUNT', KEYS[2], string.format('%.0f', floor), '+inf') - at
    if count > left then
        -- Within a level they take turns.
        local start = turn % count
        take(redis.call('ZREVRANGE', KEYS[2], at + start,
            at + math.min(start + left, count) - 1))
        if start + left > count then
            take(redis.call('ZREVRANGE', KEYS[2], at, at + start + left - count - 1))
        end
    else
        take(redis.call('ZREVRANGE', KEYS[2], at, at + count - 1))
    end
    at, left = at + count, left - count
end
if others > 0 and total > 0 then
    take(redis.call('ZRANDMEMBER', KEYS[2], others))
end
if #refs == 0 then
    return {length, name, {}, {}, {}}
end
return {length, name, refs, redis.call('ZMSCORE', KEYS[2], unpack(refs)),
    redis.call('HMGET', KEYS[3], unpack(refs))}
