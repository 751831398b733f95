-- A peer listens for the other family of addresses as well, or does so no more.
-- KEYS: peer. ARGV: address or nothing, its family, lease in ms.
-- Returns nothing if it is not known; else the address at which it is listed, or nothing,
-- and whether that has changed.
local peer = redis.call('HMGET', KEYS[1], 'host', 'family', 'dead', 'also')
if not peer[1] or peer[3] then
    return false
end
local before, after = peer[4] or '', ARGV[1]
if ARGV[2] == '' or peer[2] == '' or peer[2] == ARGV[2] then
    after = ''
end
if after == '' then
    redis.call('HDEL', KEYS[1], 'also', 'also_until')
else
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('HSET', KEYS[1], 'also', after,
        'also_until', string.format('%.0f', now + tonumber(ARGV[3])))
end
local moved = 0
if before ~= after then
    moved = 1
    redis.call('HINCRBY', KEYS[1], 'rev', 1)
end
return {after, moved}
